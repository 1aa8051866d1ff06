//! The stages as bars.

use std::fmt::Write;

/// A stage's name and its numbers, each from 0 to 1.
pub type Bars = (String, [Option<f64>; 4]);

const SERIES: [(&str, &str); 4] = [
    ("arithmetic, right", "#0072b2"),
    ("countdown, right", "#56b4e9"),
    ("thoughts in one language", "#e69f00"),
    ("greetings liked better than the base model's", "#009e73"),
];
const LEFT: usize = 56;
const TOP: usize = 64;
const HEIGHT: usize = 240;
/// The width of a stage, and of a bar.
const STAGE: usize = 84;
const BAR: usize = 17;

/// An SVG of grouped bars.
pub fn draw(title: &str, stages: &[Bars]) -> String {
    let (width, bottom) = (LEFT + STAGE * stages.len() + 24, TOP + HEIGHT);
    let height = bottom + 96;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"30\" font-size=\"17\" font-weight=\"bold\" fill=\"#1f2933\">{title}</text>\n"
    );
    // Writing to a `String` does not fail.
    for percent in [0, 25, 50, 75, 100] {
        let y = bottom - HEIGHT * percent / 100;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#e4e9ed\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#616e7c\">{percent} %</text>",
            width - 24,
            LEFT - 8,
            y + 4,
        );
    }
    for (index, (name, shares)) in stages.iter().enumerate() {
        let start = LEFT + index * STAGE + 6;
        for (bar, (share, (_, colour))) in shares.iter().zip(SERIES).enumerate() {
            let Some(share) = share else { continue };
            let tall = share * HEIGHT as f64;
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{:.1}\" width=\"{}\" height=\"{tall:.1}\" fill=\"{colour}\"/>",
                start + bar * BAR,
                bottom as f64 - tall,
                BAR - 2,
            );
        }
        let middle = start + 2 * BAR;
        for (line, word) in name.split('_').enumerate() {
            let _ = writeln!(
                svg,
                "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" fill=\"#1f2933\">{word}</text>",
                bottom + 18 + 14 * line,
            );
        }
    }
    let mut x = LEFT;
    for (name, colour) in SERIES {
        let y = height - 22;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{y}\" fill=\"#1f2933\">{name}</text>",
            y - 11,
            x + 18,
        );
        x += 40 + 7 * name.len();
    }
    svg + "</svg>\n"
}
