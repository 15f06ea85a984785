//! Lists of an answer, read up to a bound: the switch that sends them may have been taken over.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A list of at most `MAX` elements; a longer one is not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// Its elements.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list::<T, D, MAX>(deserializer).map(Self)
    }
}

/// Reads a list of at most `MAX` elements: for a field's `deserialize_with`.
pub(crate) fn list<'de, T, D, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Elements<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "a list of at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while let Some(element) = elements.next_element()? {
                if read.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                read.push(element);
            }
            Ok(read)
        }
    }

    deserializer.deserialize_seq(Elements::<T, MAX>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_read_up_to_its_bound() {
        type Three = List<u8, 3>;
        let read = serde_json::from_str::<Three>("[1,2,3]").expect("three");
        assert_eq!(read.into_vec(), [1, 2, 3]);
        let error = serde_json::from_str::<Three>("[1,2,3,4]").expect_err("four");
        assert!(
            error.to_string().contains("a list of at most 3 elements"),
            "{error}"
        );
        for wrong in ["{}", "7", "\"\"", "[[]]"] {
            assert!(serde_json::from_str::<Three>(wrong).is_err(), "{wrong}");
        }
    }
}
