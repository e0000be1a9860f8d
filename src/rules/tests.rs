//! Helpers that the tests of rules share.

use crate::base::bits::Bits;
pub(in crate::rules) use crate::catalog::image::fake as image;

/// The set of these numbers.
pub(in crate::rules) fn bits(numbers: &[usize]) -> Bits {
    let mut bits = Bits::default();
    for number in numbers {
        bits.insert(*number);
    }
    bits
}
