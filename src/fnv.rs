//! The 64-bit FNV-1a hash, which protects against mistakes, not against attacks.

/// The state of a hash.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds a byte, or a word as if it were one.
    pub(crate) fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Adds the bytes of a text.
    pub(crate) fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.add(byte.into()));
    }

    /// Adds the bytes of a text and the terminator 0xFF, which no UTF-8 text contains, so that the
    /// boundaries between texts count.
    pub(crate) fn text_and_end(&mut self, text: &str) {
        self.text(text);
        self.add(0xFF);
    }

    /// Returns the hash.
    pub(crate) fn finish(&self) -> u64 {
        self.0
    }
}
