//! Scorers for answers that consist of numbers.

use super::super::RewardError;
use super::metadata::{read, reference};
use super::text::{Decimal, first_number, integer, length, strip};
use crate::prompt::evaluate_expression;
use crate::types::Problem;

/// Scores 1 for the reference; an answer that contains it scores its share of the characters.
pub(super) fn contained(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let reference = reference(problem)?;
    Ok(match answer.contains(reference) {
        true => length(reference) as f64 / length(answer) as f64,
        false => 0.0,
    })
}

/// As [`contained`], and 1 for the same number in another form. Commas are ignored.
pub(super) fn decimal(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let reference = reference(problem)?.replace(',', "");
    let Some(right) = Decimal::read(&reference) else {
        return Err(format!("the reference `answer` is {reference:?}; expected a number").into());
    };
    let answer = answer.replace(',', "");
    if Decimal::read(&answer).is_some_and(|number| number == right) {
        return Ok(1.0);
    }
    Ok(match answer.contains(&reference) {
        true => length(&reference) as f64 / length(&answer) as f64,
        false => 0.0,
    })
}

/// Scores 1 for a solution, 0.05 for another expression, 0.01 for anything else.
pub(super) fn countdown(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let mut numbers: Vec<u64> = read(problem, "numbers", "a list of non-negative integers")?;
    let target: i64 = read(problem, "target", "an integer")?;
    let Ok(mut found) = evaluate_expression(answer) else {
        return Ok(0.01);
    };
    numbers.sort_unstable();
    found.numbers.sort_unstable();
    let solved = found.numbers == numbers && found.value.to_integer() == Some(target.into());
    Ok(if solved { 1.0 } else { 0.05 })
}

/// Scores 1 for the primes in any order, 0.5 for other factors of the number, 0.01 for other
/// numbers.
pub(super) fn prime_factorization(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let reference = reference(problem)?;
    let Some(right) = factors(reference) else {
        let expected = "integers with × between them";
        return Err(format!("the reference `answer` is {reference:?}; expected {expected}").into());
    };
    let product = |factors: &[i128]| {
        let multiply = |product: i128, factor: &i128| product.checked_mul(*factor);
        factors.iter().try_fold(1, multiply)
    };
    Ok(match factors(answer) {
        Some(found) if found == right => 1.0,
        Some(found) if product(&found) == product(&right) => 0.5,
        Some(_) => 0.01,
        None => 0.0,
    })
}

/// The integers between `×`, sorted. Blank factors are ignored.
fn factors(text: &str) -> Option<Vec<i128>> {
    let factors = text.split('×').filter(|factor| !strip(factor).is_empty());
    let mut factors: Vec<i128> = factors.map(integer).collect::<Option<_>>()?;
    factors.sort_unstable();
    Some(factors)
}

/// Scores 1 for the fraction, 0.1 if one part is that of the question, 0.05 for another fraction,
/// else 0.01.
pub(super) fn fraction_simplification(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let part = |key| read::<i64>(problem, key, "an integer").map(i128::from);
    let right = (
        part("simplified_numerator")?,
        part("simplified_denominator")?,
    );
    let (numerator, denominator) = (part("numerator")?, part("denominator")?);
    Ok(match fraction(answer) {
        Some(found) if found == right => 1.0,
        Some(found) if found.0 == numerator || found.1 == denominator => 0.1,
        Some(_) => 0.05,
        None => 0.01,
    })
}

/// Parses a fraction `a/b`, or `\frac{a}{b}` with anything after it, with or without dollar signs.
fn fraction(text: &str) -> Option<(i128, i128)> {
    let text = strip(strip(text).trim_matches('$'));
    latex_fraction(text).or_else(|| {
        let (numerator, denominator) = text.split_once('/')?;
        Some((integer(numerator)?, integer(denominator)?))
    })
}

/// Parses `\frac{a}{b}` or `\dfrac{a}{b}` of digits at the start of the text.
fn latex_fraction(text: &str) -> Option<(i128, i128)> {
    let rest = text.strip_prefix('\\')?;
    let command = ["frac", "dfrac"].into_iter().find(|command| {
        let start = rest.get(..command.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(command))
    })?;
    let (numerator, rest) = braced_digits(&rest[command.len()..])?;
    let (denominator, _) = braced_digits(rest)?;
    Some((numerator, denominator))
}

/// The number in braces at the start of the text, and the text after it.
fn braced_digits(text: &str) -> Option<(i128, &str)> {
    let (inside, rest) = strip_start(text).strip_prefix('{')?.split_once('}')?;
    let digits = strip(inside);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = integer(digits).filter(|_| plain)?;
    Some((number, rest))
}

fn strip_start(text: &str) -> &str {
    text.trim_start_matches(super::text::is_python_space)
}

/// Scores 1 if the answer is off by at most one unit of the last decimal place of the question,
/// else 0.
pub(super) fn decimal_arithmetic(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let reference = reference(problem)?;
    // The maximum number of places of the generator, or else those of the question.
    let range = problem.metadata.get("difficulty");
    let places = match range.and_then(|range| range.pointer("/decimal_places/1")?.as_u64()) {
        Some(places) => places,
        None => read(problem, "decimal_places", "a number of digits")?,
    };
    let units = |text: &str| Decimal::read(text)?.units();
    let (Some(right), Some(tolerance)) = (units(reference), units(&format!("1e-{places}"))) else {
        return Err(format!("the reference `answer` is {reference:?}; expected a number").into());
    };
    let near = units(answer)
        .and_then(|found| found.checked_sub(right))
        .is_some_and(|d| d.abs() <= tolerance);
    Ok(if near { 1.0 } else { 0.0 })
}

/// Scores 1 if the first number in the answer is right, and 0.01 if it is not.
pub(super) fn gsm_symbolic(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let reference = reference(problem)?;
    let Ok(right) = strip(reference).parse::<f64>() else {
        return Err(format!("the reference `answer` is {reference:?}; expected a number").into());
    };
    Ok(match first_number(answer) {
        Some(number) if number == right => 1.0,
        Some(_) => 0.01,
        None => 0.0,
    })
}

/// Scores the closeness of the solutions, minus a penalty for missing and extra ones. A reference
/// without numbers means that there are no solutions.
pub(super) fn polynomial_equations(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let solutions = |text: &str| {
        let numbers = text.split(',').filter_map(|part| strip(part).parse().ok());
        let mut numbers: Vec<f64> = numbers.collect();
        numbers.sort_unstable_by(f64::total_cmp);
        numbers
    };
    let (mut right, found) = (solutions(&problem.answer), solutions(answer));
    if right.is_empty() && found.is_empty() {
        return Ok(1.0);
    }
    let (mut closeness, mut matched, mut extra) = (0.0, 0usize, 0usize);
    for number in found {
        // The nearest of the remaining solutions; an infinite number has none.
        let distances = right.iter().map(|right| (number - right).abs()).enumerate();
        let nearest = distances
            .filter(|(_, distance)| distance.is_finite())
            .min_by(|(_, a), (_, b)| a.total_cmp(b));
        match nearest {
            Some((at, distance)) => {
                right.remove(at);
                closeness += (-10.0 * distance).exp();
                matched += 1;
            }
            None => extra += 1,
        }
    }
    let mean = closeness / matched.max(1) as f64;
    let penalty = 0.5 * (right.len() + extra) as f64;
    Ok((mean - penalty).max(0.0))
}
