//! Values that take their room.

use waterwheel::connectors::generator::Random;

/// Bytes of a [`random_text`].
pub const VALUE: usize = 256;

/// [`VALUE`] characters that do not compress, the same ones for a number each time.
pub fn random_text(n: u64) -> String {
    let mut random = Random::of(3, 0, n);
    let mut text = String::with_capacity(VALUE);
    while text.len() < VALUE {
        let bits = random.next_u64();
        text.extend((0..8).map(|i| char::from(b'0' + (bits >> (8 * i)) as u8 % 64)));
    }
    text
}
