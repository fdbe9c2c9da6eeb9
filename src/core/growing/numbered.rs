//! Items by numbers that somebody else gives, small and dense: in pages, so that none is moved when more come.

/// Places of a page.
const PAGE: usize = 64;

/// Items by number.
#[derive(Debug)]
pub(crate) struct Numbered<T> {
    pages: Vec<Box<[Option<T>; PAGE]>>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { pages: Vec::new() }
    }
}

impl<T> Numbered<T> {
    /// How many places there are; greater numbers are nobody's.
    #[inline]
    pub fn places(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// A place, whether or not there is anything.
    #[inline(always)]
    pub fn place(&self, number: u32) -> Option<&Option<T>> {
        let page = self.pages.get(number as usize / PAGE)?;
        Some(&page[number as usize % PAGE])
    }

    /// The item of that number.
    #[inline(always)]
    pub fn get(&self, number: u32) -> Option<&T> {
        self.place(number)?.as_ref()
    }

    /// The item of that number.
    #[inline(always)]
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let page = self.pages.get_mut(number as usize / PAGE)?;
        page[number as usize % PAGE].as_mut()
    }

    /// Takes the item of that number out.
    pub fn take(&mut self, number: u32) -> Option<T> {
        let page = self.pages.get_mut(number as usize / PAGE)?;
        page[number as usize % PAGE].take()
    }

    /// Puts an item at that number, in place of one that is there, which is returned.
    pub fn put(&mut self, number: u32, item: T) -> Option<T> {
        let (page, place) = (number as usize / PAGE, number as usize % PAGE);
        while self.pages.len() <= page {
            self.pages.push(Box::new([const { None }; PAGE]));
        }
        self.pages[page][place].replace(item)
    }

    /// All items, for changing, by number.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages
            .iter_mut()
            .flat_map(|page| page.iter_mut().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_map(steps in proptest::collection::vec((0u32..500, any::<Option<u8>>()), 0..300)) {
            let (mut items, mut model) = (Numbered::default(), BTreeMap::new());
            for (number, value) in steps {
                match value {
                    Some(value) => {
                        prop_assert_eq!(items.put(number, value), model.insert(number, value));
                    }
                    None => prop_assert_eq!(items.take(number), model.remove(&number)),
                }
            }
            for number in 0..600 {
                prop_assert_eq!(items.get(number), model.get(&number));
                prop_assert_eq!(items.get_mut(number), model.get_mut(&number));
                prop_assert!(items.get(number).is_none() || (number as usize) < items.places());
            }
            prop_assert!(items.iter_mut().map(|item| *item).eq(model.into_values()));
        }
    }

    #[test]
    fn more_of_them_leave_those_before_where_they_are() {
        let mut items = Numbered::default();
        items.put(0, 7);
        let place = std::ptr::from_ref(items.get(0).unwrap());
        for number in 1..100_000 {
            items.put(number, 7);
        }
        assert_eq!(std::ptr::from_ref(items.get(0).unwrap()), place);
    }
}
