//! [`Ordered`]: a map whose keys mostly grow by one and mostly leave in the order in which they came.
//!
//! Commands of a session are such a thing. A sorted queue holds them: adding at the end, finding a number and taking the
//! first one cost next to nothing, and whatever is out of the ordinary is found by halving.

use std::collections::{VecDeque, vec_deque};

#[derive(Clone, Debug)]
pub(in crate::groups) struct Ordered<V>(VecDeque<(u64, V)>);

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<V> Ordered<V> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The place of the key, or where it belongs.
    fn find(&self, key: u64) -> Result<usize, usize> {
        let Some((first, _)) = self.0.front() else { return Err(0) };
        // Where it is when nothing before it is missing.
        let guess = key.checked_sub(*first).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0);
        match self.0.get(guess) {
            Some((at, _)) if *at == key => Ok(guess),
            _ => match self.0.back() {
                Some((last, _)) if *last < key => Err(self.0.len()),
                _ => self.0.binary_search_by_key(&key, |(at, _)| *at),
            },
        }
    }

    /// Adds or replaces.
    pub fn insert(&mut self, key: u64, value: V) {
        match self.find(key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) if at == self.0.len() => self.0.push_back((key, value)),
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    pub fn get(&self, key: u64) -> Option<&V> {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        self.find(key).ok().map(|at| &mut self.0[at].1)
    }

    pub fn remove(&mut self, key: u64) -> Option<V> {
        let at = self.find(key).ok()?;
        let removed = if at == 0 { self.0.pop_front() } else { self.0.remove(at) };
        removed.map(|(_, value)| value)
    }

    pub fn first(&self) -> Option<(u64, &V)> {
        self.0.front().map(|(key, value)| (*key, value))
    }

    pub fn pop_first(&mut self) -> Option<(u64, V)> {
        self.0.pop_front()
    }

    /// From the key on, in order.
    pub fn range_mut(&mut self, from: u64) -> impl Iterator<Item = (u64, &mut V)> {
        let start = self.find(from).unwrap_or_else(|at| at);
        self.0.range_mut(start..).map(|(key, value)| (*key, value))
    }

    /// Whether anything is at the key or after it.
    pub fn reaches(&self, key: u64) -> bool {
        self.0.back().is_some_and(|(last, _)| *last >= key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    /// Takes out what `which` says, in order.
    pub fn extract(&mut self, mut which: impl FnMut(&V) -> bool) -> Vec<(u64, V)> {
        let mut out = Vec::new();
        if self.0.iter().any(|(_, value)| which(value)) {
            let mut rest = VecDeque::with_capacity(self.0.len());
            for (key, value) in std::mem::take(&mut self.0) {
                if which(&value) { out.push((key, value)) } else { rest.push_back((key, value)) }
            }
            self.0 = rest;
        }
        out
    }
}

impl<V> IntoIterator for Ordered<V> {
    type Item = (u64, V);
    type IntoIter = vec_deque::IntoIter<(u64, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_leaves_and_the_rest_is_found() {
        let mut ordered = Ordered::default();
        assert!(ordered.is_empty());
        (5..9).for_each(|key| ordered.insert(key, key * 10));
        assert_eq!(ordered.pop_first(), Some((5, 50)));
        assert_eq!((ordered.get(5), ordered.get(7), ordered.get(9)), (None, Some(&70), None));
        assert_eq!(ordered.remove(7), Some(70));
        assert_eq!(ordered.range_mut(7).map(|(key, _)| key).collect::<Vec<_>>(), [8]);
        assert!(ordered.reaches(8) && !ordered.reaches(9) && !ordered.is_empty());
    }

    proptest! {
        #[test]
        fn it_is_a_map(actions in prop::collection::vec((0..4_u8, 0..40_u64), 0..200)) {
            let (mut ordered, mut map) = (Ordered::default(), BTreeMap::new());
            for (turn, (action, key)) in actions.into_iter().enumerate() {
                match action {
                    0 | 1 => {
                        ordered.insert(key, turn);
                        map.insert(key, turn);
                    }
                    2 => prop_assert_eq!(ordered.remove(key), map.remove(&key)),
                    _ => {
                        let taken = ordered.extract(|value| value % 3 == 0);
                        let expected: Vec<_> = map.extract_if(.., |_, value| *value % 3 == 0).collect();
                        prop_assert_eq!(taken, expected);
                    }
                }
                prop_assert_eq!(ordered.get(key), map.get(&key));
                prop_assert_eq!(ordered.iter().collect::<Vec<_>>(), map.iter().map(|(k, v)| (*k, v)).collect::<Vec<_>>());
                let tail: Vec<_> = ordered.range_mut(key).map(|(key, value)| (key, *value)).collect();
                prop_assert_eq!(tail, map.range(key..).map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
            }
        }
    }
}
