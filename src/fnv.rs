//! FNV-1a of 64 bits: tells mistakes apart, not attacks.

/// A hash in the making.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds a byte, or a word in its place.
    pub(crate) fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Adds the bytes of a text.
    pub(crate) fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.add(byte.into()));
    }

    /// The same, with an end: 0xFF is no UTF-8 byte, so texts that follow one another are told apart.
    pub(crate) fn text_and_end(&mut self, text: &str) {
        self.text(text);
        self.add(0xFF);
    }

    /// The hash of what was added.
    pub(crate) fn finish(&self) -> u64 {
        self.0
    }
}
