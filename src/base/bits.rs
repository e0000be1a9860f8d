//! Sets of small numbers, for questions over thousands of agents or images at once.

/// Words that are kept in place; a set that needs more is kept apart. So a lab of 128 agents has a set per image, and
/// none of them is another place in memory to go to.
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

    /// The words, at least so many.
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

    /// Puts a number in.
    pub(crate) fn insert(&mut self, number: usize) {
        let (word, bit) = place(number);
        if let Some(slot) = self.grown(word + 1).get_mut(word) {
            *slot |= bit;
        }
    }

    /// Takes a number out.
    pub(crate) fn remove(&mut self, number: usize) {
        let (word, bit) = place(number);
        if let Some(slot) = self.words_mut().get_mut(word) {
            *slot &= !bit;
        }
    }

    /// Whether a number is in.
    #[inline]
    pub(crate) fn contains(&self, number: usize) -> bool {
        let (word, bit) = place(number);
        self.words().get(word).is_some_and(|slot| slot & bit != 0)
    }

    /// Whether none is in.
    pub(crate) fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    /// How many are in.
    pub(crate) fn count(&self) -> usize {
        self.words().iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether a number is in both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.words().iter().zip(other.words()).any(|(a, b)| a & b != 0)
    }

    /// Those in this or in the other.
    pub(crate) fn union_with(&mut self, other: &Self) {
        for (mine, theirs) in self.grown(other.words().len()).iter_mut().zip(other.words()) {
            *mine |= theirs;
        }
    }

    /// Those in one of the two only.
    pub(crate) fn toggle(&mut self, other: &Self) {
        for (mine, theirs) in self.grown(other.words().len()).iter_mut().zip(other.words()) {
            *mine ^= theirs;
        }
    }

    /// Those in this and not in the other.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (mine, theirs) in self.words_mut().iter_mut().zip(other.words()) {
            *mine &= !theirs;
        }
    }

    /// Those in this and in the other.
    pub(crate) fn intersect_with(&mut self, other: &Self) {
        let theirs = other.words().iter().copied().chain(std::iter::repeat(0));
        for (mine, theirs) in self.words_mut().iter_mut().zip(theirs) {
            *mine &= theirs;
        }
    }

    /// The numbers, in order.
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

/// By the numbers, however many words they are kept in.
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
