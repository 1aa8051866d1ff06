//! Setters that several rewards have in common.

macro_rules! with_name {
    () => {
        /// The same reward under another name.
        #[must_use]
        pub fn with_name(mut self, name: impl Into<String>) -> Self {
            self.name = name.into();
            self
        }
    };
}

#[cfg(feature = "math")]
macro_rules! with_tags {
    () => {
        /// The same reward with other tags around thinking and answer.
        #[must_use]
        pub fn with_tags(mut self, tags: $crate::reward::Tags) -> Self {
            self.tags = tags;
            self
        }
    };
}

#[cfg(feature = "math")]
macro_rules! with_extract {
    () => {
        /// The same reward with the answer taken from elsewhere: by one [`Rule`](crate::reward::Rule), or by an
        /// [`Extractor`](crate::reward::Extractor).
        #[must_use]
        pub fn with_extract(mut self, extractor: impl Into<$crate::reward::Extractor>) -> Self {
            self.extractor = extractor.into();
            self
        }
    };
}

pub(super) use with_name;
#[cfg(feature = "math")]
pub(super) use {with_extract, with_tags};
