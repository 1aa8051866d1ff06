//! Whether two answers are equal, by the rule of their kind.
//!
//! | kind | rule in |
//! |---|---|
//! | letters of a choice, answers in words | `letter`, `words` |
//! | which rule applies | `comparer`, `dispatch` |
//! | values: exact, modulo primes, in balls | `values`, `precision` |
//! | decimals | `rounding` |
//! | percent, degrees, ratios, bases, times | `tagged` |
//! | units | `quantity` |
//! | lists, sets, tuples, matrices | `collection` |
//! | intervals, inequalities | `interval`, `inequality`, `region` |
//! | equations, assignments | `relation` |
//!
//! "Different" is proven or a matter of kind; "equal" is exact, or probabilistic as `values` says; what neither could show
//! within the limits of [`MathConfig`](crate::MathConfig) is "undecided". Work is counted, never timed.

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
