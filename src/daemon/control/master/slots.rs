//! Numbered places: ids are small, dense, and given out again only after being freed, the longest-free first.

use std::collections::VecDeque;

/// Values by number.
#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<Option<T>>,
    free: VecDeque<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots {
            places: Vec::new(),
            free: VecDeque::new(),
        }
    }
}

impl<T> Slots<T> {
    /// A place for the value that `make` makes of its number.
    pub fn insert(&mut self, make: impl FnOnce(u32) -> T) -> u32 {
        let number = self.free.pop_front().unwrap_or(self.places.len() as u32);
        let value = Some(make(number));
        match self.places.get_mut(number as usize) {
            Some(place) => *place = value,
            None => self.places.push(value),
        }
        number
    }

    /// Takes a value out. Its number stays taken until [`Slots::free`].
    pub fn take(&mut self, number: u32) -> Option<T> {
        self.places.get_mut(number as usize)?.take()
    }

    /// Lets an empty place's number be used again.
    pub fn free(&mut self, number: u32) {
        self.free.push_back(number);
    }

    /// The value of that number.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.places.get(number as usize)?.as_ref()
    }

    /// The value of that number.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.places.get_mut(number as usize)?.as_mut()
    }

    /// All values with numbers from `from` on, ascending.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = (u32, &T)> {
        let from = from as usize;
        let places = self.places.get(from..).unwrap_or(&[]);
        places
            .iter()
            .enumerate()
            .filter_map(move |(i, place)| Some(((from + i) as u32, place.as_ref()?)))
    }

    /// The place of that number, which may be empty; none where no number is as great.
    pub fn place_mut(&mut self, number: u32) -> Option<&mut Option<T>> {
        self.places.get_mut(number as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_only_after_it_is_freed() {
        let mut slots = Slots::default();
        assert_eq!((slots.insert(|_| 'a'), slots.insert(|_| 'b')), (0, 1));
        assert_eq!(slots.take(0), Some('a'));
        assert_eq!(slots.insert(|_| 'c'), 2);
        slots.free(0);
        assert_eq!(slots.insert(|_| 'd'), 0);
        let all: Vec<_> = slots.iter_from(1).collect();
        assert_eq!(all, [(1, &'b'), (2, &'c')]);
    }
}
