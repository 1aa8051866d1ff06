//! The rules of equality, by the kind of the answers.
//!
//! | kind | rule in |
//! |---|---|
//! | multiple-choice letters, answers in words | `letter`, `words` |
//! | the choice of the rule | `comparer`, `dispatch` |
//! | values: exact, modulo primes, in ball arithmetic | `values`, `precision` |
//! | decimals | `rounding` |
//! | percent, degrees, ratios, bases, times | `tagged` |
//! | units | `quantity` |
//! | lists, sets, tuples, matrices | `collection` |
//! | intervals, inequalities | `interval`, `inequality`, `region`, `sign` |
//! | equations, assignments | `relation` |
//!
//! "Different" is proven, or follows from the kinds. "Equal" is exact, or probabilistic as
//! described in `values`. If neither can be shown within the limits of
//! [`MathConfig`](crate::MathConfig), the verdict is "undecided". Work is counted rather than
//! timed.

pub(crate) mod collection;
pub(crate) mod comparer;
pub(crate) mod dispatch;
pub(crate) mod inequality;
pub(crate) mod interval;
pub(crate) mod letter;
pub(crate) mod precision;
pub(crate) mod quantity;
pub(crate) mod region;
pub(crate) mod relation;
pub(crate) mod rounding;
pub(crate) mod sign;
pub(crate) mod tagged;
pub(crate) mod values;
pub(crate) mod verdict;
pub(crate) mod verifier;
pub(crate) mod words;
