//! Sets of small numbers, for questions over thousands of agents or images at once.

/// How many words are kept in the set itself; a larger set is kept on the heap. So a lab of 128 agents has a set per
/// image without another memory access for any of them.
const IN_PLACE: usize = 2;

/// A set of numbers, one bit each.
#[derive(Debug, Clone)]
pub struct Bits(Words);

#[derive(Debug, Clone)]
enum Words {
    Few([u64; IN_PLACE]),
    Many(Vec<u64>),
}

impl Default for Bits {
    fn default() -> Self {
        Self(Words::Few([0; IN_PLACE]))
    }
}

impl Bits {
    #[inline]
    fn words(&self) -> &[u64] {
        match &self.0 {
            Words::Few(words) => words,
            Words::Many(words) => words,
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        match &mut self.0 {
            Words::Few(words) => words,
            Words::Many(words) => words,
        }
    }

    /// The words, at least `count` of them.
    fn grown(&mut self, count: usize) -> &mut [u64] {
        if let Words::Few(words) = self.0
            && count > IN_PLACE
        {
            self.0 = Words::Many(words.to_vec());
        }
        match &mut self.0 {
            Words::Many(words) if words.len() < count => words.resize(count, 0),
            _ => {}
        }
        self.words_mut()
    }

    /// Adds a number.
    pub(crate) fn insert(&mut self, number: usize) {
        let (word, bit) = place(number);
        if let Some(slot) = self.grown(word + 1).get_mut(word) {
            *slot |= bit;
        }
    }

    /// Removes a number.
    pub(crate) fn remove(&mut self, number: usize) {
        let (word, bit) = place(number);
        if let Some(slot) = self.words_mut().get_mut(word) {
            *slot &= !bit;
        }
    }

    /// Whether the set contains this number.
    #[inline]
    pub(crate) fn contains(&self, number: usize) -> bool {
        let (word, bit) = place(number);
        self.words().get(word).is_some_and(|slot| slot & bit != 0)
    }

    /// Whether the set is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    /// How many numbers the set contains.
    pub(crate) fn count(&self) -> usize {
        self.words().iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether some number is in both sets.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.words().iter().zip(other.words()).any(|(a, b)| a & b != 0)
    }

    /// Adds the numbers of the other set.
    pub(crate) fn union_with(&mut self, other: &Self) {
        for (mine, theirs) in self.grown(other.words().len()).iter_mut().zip(other.words()) {
            *mine |= theirs;
        }
    }

    /// Keeps the numbers that are in exactly one of the two sets.
    pub(crate) fn toggle(&mut self, other: &Self) {
        for (mine, theirs) in self.grown(other.words().len()).iter_mut().zip(other.words()) {
            *mine ^= theirs;
        }
    }

    /// Removes the numbers of the other set.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (mine, theirs) in self.words_mut().iter_mut().zip(other.words()) {
            *mine &= !theirs;
        }
    }

    /// Keeps only the numbers that are also in the other set.
    pub(crate) fn intersect_with(&mut self, other: &Self) {
        let theirs = other.words().iter().copied().chain(std::iter::repeat(0));
        for (mine, theirs) in self.words_mut().iter_mut().zip(theirs) {
            *mine &= theirs;
        }
    }

    /// The numbers in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words().iter().enumerate().flat_map(|(place, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < u64::BITS).then_some(place * 64 + bit as usize)
            })
        })
    }
}

/// Compares the numbers, however many words hold them.
impl PartialEq for Bits {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Bits {}

impl FromIterator<usize> for Bits {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut bits = Self::default();
        numbers.into_iter().for_each(|number| bits.insert(number));
        bits
    }
}

fn place(number: usize) -> (usize, u64) {
    (number / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::Bits;

    fn bits(numbers: &[usize]) -> Bits {
        numbers.iter().copied().collect()
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set = bits(&[0, 63, 64, 200]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 200]);
        set.remove(64);
        set.remove(9_999);
        assert!(set.contains(63) && !set.contains(64) && !set.contains(9_999));
        assert_eq!(set.count(), 3);
    }

    #[test]
    fn sets_combine_whatever_their_lengths() {
        let (short, long) = (bits(&[1, 2]), bits(&[2, 300]));
        let combined = |combine: fn(&mut Bits, &Bits), a: &Bits, b: &Bits| {
            let mut set = a.clone();
            combine(&mut set, b);
            set.iter().collect::<Vec<_>>()
        };
        assert_eq!(combined(Bits::union_with, &short, &long), [1, 2, 300]);
        assert_eq!(combined(Bits::toggle, &short, &long), [1, 300]);
        assert_eq!(combined(Bits::toggle, &long, &short), [1, 300]);
        assert_eq!(combined(Bits::subtract, &long, &short), [300]);
        assert_eq!(combined(Bits::intersect_with, &long, &short), [2]);
        assert_eq!(combined(Bits::intersect_with, &short, &long), [2]);
        assert!(short.meets(&long) && !short.meets(&bits(&[300])));
        assert!(bits(&[]).is_empty());
    }
}
