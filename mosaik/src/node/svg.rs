//! A graph as an SVG picture, for people who look: laid out by `layout-rs`, which needs no Graphviz. Boxes are roles, rounded boxes
//! streams (blue), groups (yellow) and stores (green), each with its kind below its name; a dashed arrow to a group is that of a
//! client.

use layout::{
    adt::dag::NodeHandle,
    backends::svg::SVGWriter,
    core::style::LineStyleKind,
    core::{base::Orientation, color::Color, style::StyleAttr},
    std_shapes::{
        render::get_shape_size,
        shapes::{Arrow, Element, LineEndKind, ShapeKind},
    },
    topo::layout::VisualGraph,
};

use super::{graph::Graph, states::StatesDecl};

/// The size of letters in pixels.
const FONT: usize = 15;

/// How a node of the picture looks.
#[derive(Clone, Copy)]
struct Look {
    fill: &'static str,
    /// The radius of its corners in pixels.
    rounded: usize,
    line: usize,
}

const ROLE: Look = Look { fill: "white", rounded: 0, line: 2 };
const STREAM: Look = Look { fill: "lightblue", rounded: 18, line: 1 };
const GROUP: Look = Look { fill: "khaki", rounded: 18, line: 1 };
const STORE: Look = Look { fill: "palegreen", rounded: 18, line: 1 };
const STATE: Look = Look { fill: "white", rounded: 18, line: 1 };
const LAST: Look = Look { fill: "lightgray", rounded: 18, line: 1 };

/// A picture that grows.
struct Picture(VisualGraph);

impl Picture {
    fn new() -> Self {
        Self(VisualGraph::new(Orientation::LeftToRight))
    }

    fn node(&mut self, text: &str, look: Look) -> NodeHandle {
        let shape = ShapeKind::new_box(text);
        let size = get_shape_size(Orientation::TopToBottom, &shape, FONT, false);
        let style = StyleAttr::new(Color::fast("black"), look.line, Some(Color::fast(look.fill)), look.rounded, FONT);
        self.0.add_node(Element::create(shape, style, Orientation::TopToBottom, size))
    }

    fn arrow(&mut self, from: NodeHandle, to: NodeHandle, (start, line): (LineEndKind, LineStyleKind), text: &str) {
        let style = StyleAttr::new(Color::fast("black"), 1, None, 0, FONT - 2);
        let arrow = Arrow::new(start, LineEndKind::Arrow, line, text, &style, &None, &None);
        self.0.add_edge(arrow, from, to);
    }

    fn drawn(mut self) -> String {
        let mut svg = SVGWriter::new();
        if self.0.num_nodes() > 0 {
            self.0.do_it(false, false, false, &mut svg);
        }
        let text = svg.finalize();
        // The library leaves room below for the longest text: as much as it would take in a column.
        let (width, height) = self.size();
        let begins = text.find("<svg").unwrap_or(text.len());
        let head = text[begins..].find('>').map_or(text.len(), |end| begins + end);
        format!(
            "{}<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" xmlns=\"http://www.w3.org/2000/svg\"{}\n",
            &text[..begins],
            &text[head..]
        )
    }

    /// Where all that was drawn ends, in pixels.
    fn size(&self) -> (f64, f64) {
        let ends = self.0.iter_nodes().map(|node| {
            let place = self.0.pos(node);
            (place.right(true), place.bottom(true))
        });
        ends.fold((0.0, 0.0), |(width, height), (right, bottom)| (right.max(width), bottom.max(height)))
    }
}

const ONE_WAY: (LineEndKind, LineStyleKind) = (LineEndKind::None, LineStyleKind::Normal);
const BOTH_WAYS: (LineEndKind, LineStyleKind) = (LineEndKind::Arrow, LineStyleKind::Normal);
const DASHED: (LineEndKind, LineStyleKind) = (LineEndKind::None, LineStyleKind::Dashed);

impl Graph {
    /// An SVG picture of the roles and of what connects them.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut picture = Picture::new();
        let roles: Vec<_> = self.roles().map(|role| (role.name, picture.node(role.name, ROLE))).collect();
        let of = |names: &[&'static str]| -> Vec<NodeHandle> {
            roles.iter().filter(|(name, _)| names.contains(name)).map(|(_, node)| *node).collect()
        };
        let mut owned = Vec::new();
        for used in self.streams() {
            let node = picture.node(&format!("{}\nstream", used.stream.name), STREAM);
            owned.extend(used.stream.owner.map(|group| (group, node)));
            of(&used.producers).into_iter().for_each(|role| picture.arrow(role, node, ONE_WAY, ""));
            of(&used.consumers).into_iter().for_each(|role| picture.arrow(node, role, ONE_WAY, ""));
        }
        for used in self.groups() {
            let node = picture.node(&format!("{}\ngroup", used.machine.group.name), GROUP);
            of(&used.members).into_iter().for_each(|role| picture.arrow(role, node, BOTH_WAYS, ""));
            of(&used.clients).into_iter().for_each(|role| picture.arrow(role, node, DASHED, ""));
            let its = owned.iter().filter(|(group, _)| *group == used.machine.group.name);
            its.for_each(|(_, stream)| picture.arrow(node, *stream, DASHED, "owns"));
        }
        for used in self.stores() {
            let node = picture.node(&format!("{}\nstore", used.store.name), STORE);
            of(&used.primaries).into_iter().for_each(|role| picture.arrow(role, node, ONE_WAY, ""));
            of(&used.replicas).into_iter().for_each(|role| picture.arrow(node, role, ONE_WAY, ""));
        }
        picture.drawn()
    }
}

impl StatesDecl {
    /// An SVG picture of the states, terminal ones in grey, and of what leads from one to another.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut picture = Picture::new();
        let look = |name: &&str| if self.terminal.contains(name) { LAST } else { STATE };
        let states: Vec<_> = self.names.iter().map(|name| (*name, picture.node(name, look(name)))).collect();
        let state = |wanted: &str| states.iter().find(|(name, _)| *name == wanted).map(|(_, node)| *node);
        for each in self.transitions {
            if let (Some(from), Some(to)) = (state(each.from), state(each.to)) {
                picture.arrow(from, to, ONE_WAY, &each.label());
            }
        }
        picture.drawn()
    }
}
