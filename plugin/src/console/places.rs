//! Places for readers: a bounded number in all, and fewer for each reader, so that one cannot keep the others out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Who a reader is: readers with the same value share their places.
pub type Reader = String;

/// Places for readers.
#[derive(Debug)]
pub struct Places {
    all: usize,
    each: usize,
    taken: Mutex<HashMap<Reader, usize>>,
}

/// Which places are all taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Those of all readers together.
    All,
    /// Those of this reader, and how many these are.
    Own(usize),
}

impl Places {
    /// At most `all` places, and for each reader at most `each`. One reader never takes all of several places.
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        let each = each.min(all.saturating_sub(1)).max(1);
        Arc::new(Self { all, each, taken: Mutex::default() })
    }

    /// A place for a reader, until it is dropped.
    ///
    /// # Errors
    /// [`Taken`], if there is none.
    pub fn take(self: &Arc<Self>, reader: &Reader) -> Result<Place, Taken> {
        let mut taken = self.taken();
        if taken.values().sum::<usize>() >= self.all {
            return Err(Taken::All);
        }
        let own = taken.get(reader).copied().unwrap_or(0);
        if own >= self.each {
            return Err(Taken::Own(self.each));
        }
        taken.insert(reader.clone(), own + 1);
        Ok(Place { places: Arc::clone(self), reader: reader.clone() })
    }

    /// The counts are whole at each moment, also after a panic elsewhere.
    fn taken(&self) -> MutexGuard<'_, HashMap<Reader, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    reader: Reader,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.reader) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.reader);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(name: &str) -> Reader {
        name.to_owned()
    }

    #[test]
    fn one_reader_has_its_own_bound_and_all_together_have_another() {
        let places = Places::new(3, 2);
        let (ann, bob, eve) = (reader("ann"), reader("bob"), reader("eve"));
        let _first = places.take(&ann).unwrap();
        let second = places.take(&ann).unwrap();
        assert_eq!(places.take(&ann).unwrap_err(), Taken::Own(2));
        let _of_bob = places.take(&bob).unwrap();
        assert_eq!(places.take(&eve).unwrap_err(), Taken::All);
        drop(second);
        let of_eve = places.take(&eve).unwrap();
        assert_eq!(places.take(&ann).unwrap_err(), Taken::All);
        drop(of_eve);
        assert_eq!(places.taken().len(), 2, "nothing is kept of a reader without a place");
    }

    #[test]
    fn a_bound_for_each_reader_that_is_not_lower_leaves_a_place_to_others_all_the_same() {
        let places = Places::new(3, 9);
        let ann = reader("ann");
        let _two = [places.take(&ann).unwrap(), places.take(&ann).unwrap()];
        assert_eq!(places.take(&ann).unwrap_err(), Taken::Own(2));
        let alone = Places::new(1, 9);
        let _one = alone.take(&ann).unwrap();
        assert_eq!(alone.take(&ann).unwrap_err(), Taken::All);
        assert_eq!(alone.take(&reader("bob")).unwrap_err(), Taken::All);
    }
}
