//! Setters that several rewards share.

macro_rules! with_name {
    () => {
        /// Sets the name under which scores are recorded.
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
        /// Sets the tags around thinking and answer.
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
        /// Sets where the answer is found: one [`Rule`](crate::reward::Rule), or an
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
