//! [`Label`]: the name of a corridor. What has it goes only to roles that clear it, and in a network of an authority only to peers
//! whose ticket grants `clears:` and the name. Pure.

use std::{borrow::Cow, fmt, str::FromStr};

use super::claims::MAX_GRANT_NAME;

/// What comes before a label in the grant that clears it.
const CLEARS: &str = "clears:";
/// The longest label, in bytes: with `clears:` before it, a ticket can hold it.
pub const MAX_LABEL: usize = MAX_GRANT_NAME - CLEARS.len();

/// The label of a stream, a store or a group.
///
/// ```
/// use mosaik::trust::Label;
///
/// let label: Label = "private".parse()?;
/// assert_eq!(label.grant(), "clears:private");
/// assert!("not, one".parse::<Label>().is_err());
/// # Ok::<(), mosaik::trust::LabelError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Cow<'static, str>);

/// A text is no label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no label: letters, digits, `-`, `_` and `.`, 1 to {MAX_LABEL} of them")]
pub struct LabelError {
    /// The text, or what fits of it.
    pub text: String,
}

/// Whether a text is a label.
pub(crate) const fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if !(bytes[i].is_ascii_alphanumeric() || matches!(bytes[i], b'-' | b'_' | b'.')) {
            return false;
        }
        i += 1;
    }
    !bytes.is_empty() && bytes.len() <= MAX_LABEL
}

impl Label {
    /// The label of a declaration.
    ///
    /// # Panics
    /// When it is no label; in a constant that is a compile error.
    #[must_use]
    pub const fn declared(text: &'static str) -> Self {
        assert!(is_label(text), "a label is letters, digits, `-`, `_` and `.`, at most 57 of them");
        Self(Cow::Borrowed(text))
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The grant that a ticket needs to receive what has this label.
    #[must_use]
    pub fn grant(&self) -> String {
        format!("{CLEARS}{self}")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        if is_label(text) {
            return Ok(Self(Cow::Owned(text.to_owned())));
        }
        Err(LabelError { text: text.chars().take(MAX_LABEL).collect() })
    }
}

/// A label as a peer told it, for people: what is none is not repeated.
pub(crate) fn told(label: Option<&str>) -> &str {
    match label {
        None => "no label",
        Some(label) if is_label(label) => label,
        Some(_) => "something that is no label",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_fits_a_ticket_and_stands_in_a_message_as_it_is() {
        let longest = "x".repeat(MAX_LABEL);
        let label: Label = longest.parse().expect("is one");
        assert_eq!(label.grant().len(), MAX_GRANT_NAME);
        assert_eq!(Label::declared("private-1_a.b").as_str(), "private-1_a.b");
        for text in ["", "a b", "a,b", "a\n", "\u{e9}", "clears:a"] {
            assert_eq!(text.parse::<Label>(), Err(LabelError { text: text.to_owned() }));
        }
        let long = format!("{longest}x").parse::<Label>();
        assert_eq!(long, Err(LabelError { text: longest }));
        assert_eq!((told(None), told(Some("a")), told(Some("\x1b["))), ("no label", "a", "something that is no label"));
    }
}
