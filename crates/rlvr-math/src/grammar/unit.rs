//! Units after a number: their names and conversion factors.

use dashu_ratio::RBig;

/// A unit: its names (the first one is canonical), the quantity that it measures, and its value in
/// base units as a fraction.
type Unit = (&'static [&'static str], &'static str, i64, i64);

/// Lengths are in metres, masses in grams, times in seconds. The value of a power of a unit is that
/// power of its value.
const UNITS: &[Unit] = &[
    (&["meter", "m", "meters", "metre", "metres"], "length", 1, 1),
    (
        &[
            "centimeter",
            "cm",
            "centimeters",
            "centimetre",
            "centimetres",
            "cms",
        ],
        "length",
        1,
        100,
    ),
    (
        &[
            "millimeter",
            "mm",
            "millimeters",
            "millimetre",
            "millimetres",
        ],
        "length",
        1,
        1000,
    ),
    (&["decimeter", "dm", "decimeters"], "length", 1, 10),
    (
        &[
            "kilometer",
            "km",
            "kilometers",
            "kilometre",
            "kilometres",
            "kms",
        ],
        "length",
        1000,
        1,
    ),
    (&["inch", "in", "inches"], "length", 127, 5000),
    (&["foot", "ft", "feet"], "length", 381, 1250),
    (&["yard", "yd", "yards", "yds"], "length", 1143, 1250),
    (&["mile", "mi", "miles"], "length", 201_168, 125),
    (&["gram", "g", "grams", "gm"], "mass", 1, 1),
    (&["kilogram", "kg", "kilograms", "kgs"], "mass", 1000, 1),
    (&["milligram", "mg", "milligrams"], "mass", 1, 1000),
    (&["tonne", "tonnes", "ton", "tons"], "mass", 1_000_000, 1),
    (
        &["pound", "lb", "lbs", "pounds"],
        "mass",
        45_359_237,
        100_000,
    ),
    (&["ounce", "oz", "ounces"], "mass", 45_359_237, 1_600_000),
    (&["second", "s", "seconds", "sec", "secs"], "time", 1, 1),
    (&["millisecond", "ms", "milliseconds"], "time", 1, 1000),
    (&["minute", "min", "minutes", "mins"], "time", 60, 1),
    (&["hour", "h", "hours", "hr", "hrs"], "time", 3600, 1),
    (&["day", "days", "d"], "time", 86_400, 1),
    (&["week", "weeks"], "time", 604_800, 1),
    (&["month", "months"], "month", 1, 1),
    (&["year", "years", "yr", "yrs"], "month", 12, 1),
    (
        &["liter", "L", "l", "liters", "litre", "litres"],
        "volume",
        1,
        1000,
    ),
    (
        &["milliliter", "mL", "ml", "milliliters", "millilitres", "cc"],
        "volume",
        1,
        1_000_000,
    ),
    (&["gallon", "gal", "gallons"], "gallon", 4, 1),
    (&["quart", "quarts", "qt"], "gallon", 1, 1),
    (&["cup", "cups"], "cup", 1, 1),
    (
        &["dollar", "dollars", "USD", "usd", "bucks"],
        "dollar",
        1,
        1,
    ),
    (&["cent", "cents", "¢"], "dollar", 1, 100),
    (&["euro", "euros", "EUR", "€"], "euro", 1, 1),
    (&["rupee", "rupees", "Rs"], "rupee", 1, 1),
    (&["yuan", "RMB", "CNY"], "yuan", 1, 1),
    (&["yen", "JPY"], "yen", 1, 1),
    (&["radian", "rad", "radians", "rads"], "angle", 1, 1),
    (&["newton", "N", "newtons"], "force", 1, 1),
    (&["joule", "J", "joules"], "energy", 1, 1),
    (&["kilojoule", "kJ", "kilojoules"], "energy", 1000, 1),
    (&["watt", "W", "watts"], "power", 1, 1),
    (&["kilowatt", "kW", "kilowatts"], "power", 1000, 1),
    (&["volt", "V", "volts"], "voltage", 1, 1),
    (&["ampere", "A", "amperes", "amps"], "current", 1, 1),
    (&["ohm", "ohms", "Ω"], "resistance", 1, 1),
    (&["hertz", "Hz"], "frequency", 1, 1),
    (&["kilohertz", "kHz"], "frequency", 1000, 1),
    (&["pascal", "Pa", "pascals"], "pressure", 1, 1),
    (&["mole", "mol", "moles"], "amount", 1, 1),
    (&["kelvin", "K"], "temperature", 1, 1),
    (&["celsius", "°C"], "celsius", 1, 1),
    (&["fahrenheit", "°F"], "fahrenheit", 1, 1),
    (&["mph"], "mph", 1, 1),
    (&["acre", "acres"], "acre", 1, 1),
];

/// Words that count without measuring, which are like no unit.
const EMPTY: [&str; 8] = [
    "unit",
    "units",
    "square unit",
    "square units",
    "cubic units",
    "sq units",
    "units^2",
    "units^3",
];

/// Letters that are units after a number and a space.
const LETTERS: &str = "mgshLNJWVAKdl";

fn find(word: &str) -> Option<&'static Unit> {
    let word = word.trim_end_matches('.');
    UNITS
        .iter()
        .find(|unit| unit.0.contains(&word))
        .or_else(|| {
            let lower = word.to_lowercase();
            (word.len() > 2)
                .then(|| UNITS.iter().find(|unit| unit.0.contains(&lower.as_str())))
                .flatten()
        })
}

/// Returns whether a run of letters after a number is a unit or a counted thing.
pub(crate) fn is_word(word: &str) -> bool {
    let vowel = word.chars().any(|c| "aeiouyAEIOU".contains(c));
    (word.len() > 1 && find(word).is_some())
        || (word.len() > 3 && vowel)
        || EMPTY.contains(&word)
        || matches!(word, "PM" | "AM" | "pm" | "am" | "sq")
}

/// Returns whether a letter is a unit where units are expected.
pub(crate) fn is_letter(letter: &str) -> bool {
    LETTERS.contains(letter)
}

/// Returns the canonical form: `centimeter^2` for `square centimeters`, `cm^2` and `sq. cm`. `None`
/// if a unit is not known.
pub(crate) fn canonical(words: &str) -> Option<String> {
    let text = words
        .trim()
        .trim_end_matches(['.', ','])
        .replace(" per ", "/")
        .replace("sq.", "square");
    if EMPTY.contains(&text.to_lowercase().as_str()) {
        return Some(String::new());
    }
    let mut out = Vec::new();
    for part in text.split('/') {
        let mut names = Vec::new();
        let mut power = 1;
        for word in part
            .split(|c: char| c.is_whitespace() || c == '*')
            .filter(|w| !w.is_empty())
        {
            match word.to_lowercase().as_str() {
                "square" | "sq" | "squared" => power = 2,
                "cubic" | "cubed" | "cu" => power = 3,
                _ => {
                    let (name, written) = match word.split_once('^') {
                        Some((name, p)) => (name, p.trim_matches(['{', '}']).parse().ok()?),
                        None => match word.chars().last() {
                            Some('²') => (word.trim_end_matches('²'), 2),
                            Some('³') => (word.trim_end_matches('³'), 3),
                            _ => (word, 1),
                        },
                    };
                    names.push((find(name)?.0[0], written));
                }
            }
        }
        if let Some(last) = names.last_mut() {
            last.1 *= power;
        }
        let names: Vec<String> = names
            .iter()
            .map(|(name, p): &(&str, i32)| {
                if *p == 1 {
                    (*name).to_string()
                } else {
                    format!("{name}^{p}")
                }
            })
            .collect();
        if names.is_empty() {
            return None;
        }
        out.push(names.join("*"));
    }
    Some(out.join("/"))
}

/// Returns the quantities that a canonical unit measures, with their powers, and its value in base
/// units.
pub(crate) fn worth(canonical: &str) -> Option<(Vec<(String, i32)>, RBig)> {
    let mut dimensions: Vec<(String, i32)> = Vec::new();
    let mut factor = RBig::ONE;
    for (place, part) in canonical.split('/').enumerate() {
        for name in part.split('*') {
            let (name, power) = match name.split_once('^') {
                Some((name, p)) => (name, p.parse::<i32>().ok().filter(|p| p.abs() < 10)?),
                None => (name, 1),
            };
            let (_, what, num, den) = find(name)?;
            let power = if place == 0 { power } else { -power };
            // A volume is a cube of a length.
            let (what, times) = if *what == "volume" {
                ("length", 3)
            } else {
                (*what, 1)
            };
            match dimensions.iter_mut().find(|d| d.0 == what) {
                Some(d) => d.1 += power * times,
                None => dimensions.push((what.to_owned(), power * times)),
            }
            factor *= RBig::from_parts((*num).into(), (*den as u64).into()).pow(power as isize);
        }
    }
    dimensions.retain(|d| d.1 != 0);
    dimensions.sort();
    Some((dimensions, factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_unit_have_one_canonical_form() {
        for words in [
            "cm^2",
            "square centimeters",
            "sq. cm",
            "cm²",
            "centimetres^2",
        ] {
            assert_eq!(canonical(words).as_deref(), Some("centimeter^2"), "{words}");
        }
        assert_eq!(canonical("miles per hour").as_deref(), Some("mile/hour"));
        assert_eq!(canonical("square units").as_deref(), Some(""));
        assert_eq!(canonical("apples"), None);
    }

    #[test]
    fn units_of_the_same_quantity_are_converted() {
        let (what, factor) = worth("kilometer/hour").unwrap();
        let (same, base) = worth("meter/second").unwrap();
        assert_eq!(what, same);
        assert_eq!(factor / base, RBig::from_parts(5.into(), 18u8.into()));
        assert_eq!(worth("liter").unwrap().0, worth("meter^3").unwrap().0);
        assert_ne!(worth("gram").unwrap().0, worth("meter").unwrap().0);
    }
}
