//! Parts of tables that generations share.

use std::sync::Arc;

/// The previous slice if the new one is equal, so that both generations share it.
pub(crate) fn shared<T: PartialEq>(new: Vec<T>, previous: Option<&Arc<[T]>>) -> Arc<[T]> {
    match previous.filter(|previous| ***previous == *new) {
        Some(previous) => Arc::clone(previous),
        None => new.into(),
    }
}
