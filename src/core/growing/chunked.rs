//! An array that grows without moving what is in it: in chunks, of which only the first one grows.

use std::ops::{Index, IndexMut};

/// Items of a chunk.
const CHUNK: usize = 64;

/// Items numbered from 0.
#[derive(Clone, Debug)]
pub(crate) struct Chunked<T> {
    /// All but the last are full.
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Chunked<T> {
    fn default() -> Chunked<T> {
        Chunked {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Chunked<T> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Puts one behind the last.
    pub fn push(&mut self, item: T) {
        if self.len == self.chunks.len() * CHUNK {
            self.chunks.push(if self.len == 0 {
                Vec::new()
            } else {
                Vec::with_capacity(CHUNK)
            });
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(item);
            self.len += 1;
        }
    }

    /// Drops all from number `len` on.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            let Some(chunk) = self.chunks.last_mut() else {
                return;
            };
            let before = (self.len - 1) / CHUNK * CHUNK;
            if before >= len {
                self.chunks.pop();
                self.len = before;
            } else {
                chunk.truncate(len - before);
                self.len = len;
            }
        }
    }

    /// The item of that number.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// The item of that number.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// All, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten()
    }
}

impl<T> Index<usize> for Chunked<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK][index % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunked<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_was_pushed_and_not_truncated() {
        let mut items = Chunked::<usize>::default();
        let mut plain = Vec::new();
        for (pushes, len) in [
            (3, 3),
            (200, 203),
            (0, 130),
            (0, 128),
            (5, 64),
            (1, 0),
            (70, 65),
        ] {
            for _ in 0..pushes {
                items.push(plain.len());
                plain.push(plain.len());
            }
            items.truncate(len);
            plain.truncate(len);
            assert_eq!(items.len(), plain.len());
            assert!((0..plain.len()).all(|i| items[i] == plain[i]));
            assert_eq!(items.get(plain.len()), None);
            assert_eq!(items.get_mut(plain.len()), None);
            assert!(items.iter().eq(&plain));
            assert!(items.iter_mut().map(|item| *item).eq(plain.clone()));
        }
    }

    #[test]
    fn growing_leaves_items_where_they_are() {
        let mut items = Chunked::<usize>::default();
        (0..CHUNK).for_each(|n| items.push(n));
        let place = std::ptr::from_ref(&items[0]);
        (0..100 * CHUNK).for_each(|n| items.push(n));
        assert_eq!(std::ptr::from_ref(&items[0]), place);
    }
}
