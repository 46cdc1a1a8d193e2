//! Structs that are read by the names of their fields: which names mean the same field, and, if that is asked, which fields a
//! reader can do without. A struct is read once with all of its fields and then without each.

use std::rc::Rc;

use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess};

use super::{Body, Elements, Need, Owner, Stop, Walker};

impl Walker {
    /// The names of the fields of a struct or variant.
    pub(super) fn names(&self, id: usize, variant: Option<usize>) -> Option<Rc<[&'static str]>> {
        let body = match (&self.containers.get(id)?.body, variant) {
            (Body::Enum(_, variants), Some(at)) => &variants.get(at)?.body,
            (body, _) => body,
        };
        match body {
            Body::Struct(names, _) => Some(names.as_slice().into()),
            _ => None,
        }
    }

    /// How many readings a struct or variant has behind it.
    pub(super) fn trial(&self, of: Owner) -> usize {
        self.trials.as_ref().and_then(|trials| trials.get(&of).copied()).unwrap_or(0)
    }

    /// Draws the consequence of a reading by names: the first is with all fields, each other one without one.
    pub(super) fn tried<T>(
        &mut self,
        of: Owner,
        trial: usize,
        names: &[&str],
        result: Result<T, Stop>,
    ) -> Result<T, Stop> {
        let given = self.given.take();
        let omitted = trial.checked_sub(1).filter(|at| *at < names.len());
        let result = match (result, omitted) {
            (Err(Stop::Duplicate(name)), _) => {
                let primary = names.iter().position(|other| *other == name);
                let (Some(primary), Some(alias)) = (primary, given) else { return Err(Stop::Rejected) };
                if alias == primary {
                    // Another name came before the field's own: which one shows when that is given first.
                    self.early.insert((of, primary));
                } else {
                    self.aliases.insert((of, alias), primary);
                }
                return Err(Stop::Retry);
            }
            (Err(Stop::Missing), Some(_)) => Err(Stop::Retry),
            (Err(stop), _) => return Err(stop.plain()),
            (Ok(value), omitted) => {
                self.optional.extend(omitted.map(|field| (of, field)));
                Ok(value)
            }
        };
        if let Some(trials) = &mut self.trials {
            let done = trials.entry(of).or_insert(0);
            *done = (*done).max(trial + 1);
            self.unfinished |= *done <= names.len();
        }
        result
    }

    /// Takes the other names of fields out of the structs, and tells what is known of fields besides.
    pub(super) fn needs(&mut self) -> Vec<((usize, usize, usize), Need)> {
        let mut needs = Vec::new();
        let (aliases, optional) = (&self.aliases, &self.optional);
        let mut clean = |of: Owner, body: &mut Body| {
            let Body::Struct(names, parts) = body else { return };
            let is_field = |at: usize| !aliases.contains_key(&(of, at));
            for (place, at) in (0..names.len()).filter(|at| is_field(*at)).enumerate() {
                let field = (of.0, of.1, place);
                needs.extend(optional.contains(&(of, at)).then_some((field, Need::Optional)));
                let others = (0..names.len()).filter(|alias| aliases.get(&(of, *alias)) == Some(&at));
                needs.extend(others.map(|alias| (field, Need::Alias(names[alias].to_owned()))));
            }
            let keep = |at: &mut usize| {
                *at += 1;
                is_field(*at - 1)
            };
            let (mut name, mut part) = (0, 0);
            names.retain(|_| keep(&mut name));
            parts.retain(|_| keep(&mut part));
        };
        for (id, container) in self.containers.iter_mut().enumerate() {
            match &mut container.body {
                Body::Enum(_, variants) => {
                    variants.iter_mut().enumerate().for_each(|(at, variant)| clean((id, at), &mut variant.body));
                }
                body => clean((id, 0), body),
            }
        }
        needs
    }
}

/// Fields of a struct by their names.
pub(super) struct Named<'a> {
    pub(super) elements: Elements<'a>,
    pub(super) names: &'a [&'static str],
    pub(super) order: std::vec::IntoIter<usize>,
}

impl<'de> MapAccess<'de> for Named<'_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        let Some(at) = self.order.next() else { return Ok(None) };
        self.elements.at = at;
        self.elements.walker.given = Some(at);
        seed.deserialize(self.names[at].into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.elements.next(seed)
    }
}
