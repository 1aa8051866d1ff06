//! A panel of the chart: heading, axes with a grid, lines or dots, and the last value at the right.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::series::Point;

/// The resolution of the canvas relative to the chart. plotters uses integer coordinates, so a
/// small slope would otherwise become a staircase.
pub(super) const FINE: i32 = 4;

pub(super) const INK: RGBColor = RGBColor(0x22, 0x2B, 0x33);
pub(super) const MUTED: RGBColor = RGBColor(0x5F, 0x6B, 0x76);
const AXIS: RGBColor = RGBColor(0xB4, 0xBD, 0xC5);
const GRID: RGBColor = RGBColor(0xE9, 0xED, 0xF0);

const FONT: &str = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif";

/// Width of the tick labels at the left, and of the last value at the right.
pub(super) const LEFT: i32 = 66;
const RIGHT: i32 = 80;
/// The height of the heading above the axes.
const HEADING: i32 = 30;

pub(super) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// The contents of a panel.
pub(super) struct Panel<'a> {
    /// The heading, with the unit.
    pub heading: &'a str,
    /// The colour of its lines, dots and last value.
    pub colour: RGBColor,
    /// The steps of the whole chart.
    pub steps: Range<u64>,
    /// The range of the value axis.
    pub values: Range<f64>,
    /// A thin light line.
    pub raw: Vec<Point>,
    /// A thick line.
    pub smooth: Vec<Point>,
    /// Dots on the thick line.
    pub dots: Vec<Point>,
    /// The names of the thin and the thick line.
    pub legend: [&'a str; 2],
    /// The last value of the thick line, as text.
    pub last: Option<String>,
    /// Whether the axis of steps has labels.
    pub step_labels: bool,
}

impl Panel<'_> {
    /// Draws the panel at `top` with a height of `height` pixels, which includes the heading but
    /// not the step labels.
    pub(super) fn draw(&self, canvas: &Canvas, top: i32, height: i32) -> Drawn {
        let width = canvas.dim_in_pixel().0 as i32 / FINE;
        let below = if self.step_labels { 26 } else { 0 };
        text(
            canvas,
            self.heading,
            (LEFT, top + 6),
            14,
            INK,
            "bold",
            HPos::Left,
        )?;
        self.draw_legend(canvas, top + 6, width - RIGHT)?;

        let (x, y) = (
            0..width * FINE,
            (top + HEADING) * FINE..(top + height + below) * FINE,
        );
        let area = canvas
            .clone()
            .shrink((x.start, y.start), (x.end, y.end - y.start));
        let mut chart = ChartBuilder::on(&area)
            .set_label_area_size(LabelAreaPosition::Left, LEFT * FINE)
            .set_label_area_size(LabelAreaPosition::Bottom, below * FINE)
            .margin_right(RIGHT * FINE)
            .build_cartesian_2d(self.steps.clone(), self.values.clone())?;
        let digits = decimals(self.values.end - self.values.start);
        chart
            .configure_mesh()
            .x_labels(if self.steps.end < 100_000 { 16 } else { 8 })
            .y_labels(6)
            .bold_line_style(stroke(GRID, 1))
            .light_line_style(TRANSPARENT)
            .max_light_lines(1)
            // The ticks are invisible; their size is the distance of the labels from the axis.
            .axis_style(TRANSPARENT)
            .set_all_tick_mark_size(4 * FINE)
            .label_style(style(12, MUTED, "normal"))
            .x_label_formatter(&|step| step.to_string())
            .y_label_formatter(&|value| number(*value, digits))
            .draw()?;

        let plane = chart.plotting_area();
        let (left, bottom) = (self.steps.start, self.values.start);
        plane.draw(&PathElement::new(
            vec![(left, bottom), (self.steps.end, bottom)],
            stroke(AXIS, 1),
        ))?;
        if self.smooth.is_empty() {
            let (x, y) = plane.get_pixel_range();
            let centre = ((x.start + x.end) / 2 / FINE, (y.start + y.end) / 2 / FINE);
            return text(canvas, "no data", centre, 13, MUTED, "normal", HPos::Center);
        }

        plane.draw(&PathElement::new(&*self.raw, light(self.colour)))?;
        plane.draw(&PathElement::new(&*self.smooth, stroke(self.colour, 2)))?;
        // A white rim separates a dot from its line.
        for &dot in &self.dots {
            plane.draw(&Circle::new(dot, 5 * FINE, WHITE.filled()))?;
            plane.draw(&Circle::new(dot, 7 * FINE / 2, self.colour.filled()))?;
        }
        let (Some(&end), Some(last)) = (self.smooth.last(), &self.last) else {
            return Ok(());
        };
        if self.dots.is_empty() {
            plane.draw(&Circle::new(end, 7 * FINE / 2, self.colour.filled()))?;
        }
        // The number is in the margin even if the curve ends before the axis.
        let (_, y) = plane.map_coordinate(&end);
        let at = (width - RIGHT + 11, y / FINE);
        text(canvas, last, at, 14, self.colour, "bold", HPos::Left)
    }

    /// Draws the names of the lines, each after a sample of the line, ending near `right`.
    fn draw_legend(&self, canvas: &Canvas, y: i32, right: i32) -> Drawn {
        let strokes = [light(self.colour), stroke(self.colour, 2)];
        let mut end = right;
        for (name, line) in self.legend.iter().zip(strokes).rev() {
            if name.is_empty() {
                continue;
            }
            // The text starts after its line, so that a wider font extends into the empty margin.
            let start = end - (name.len() as f64 * 5.8) as i32 - 29;
            let (from, to) = ((start * FINE, y * FINE), ((start + 22) * FINE, y * FINE));
            canvas.draw(&PathElement::new(vec![from, to], line))?;
            text(
                canvas,
                name,
                (start + 29, y),
                12,
                MUTED,
                "normal",
                HPos::Left,
            )?;
            end = start - 18;
        }
        Ok(())
    }
}

/// Draws `line`, vertically centred at `at`, in pixels of the chart.
pub(super) fn text(
    canvas: &Canvas,
    line: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    weight: &'static str,
    side: HPos,
) -> Drawn {
    let style = style(size, colour, weight).pos(Pos::new(side, VPos::Center));
    canvas.draw(&Text::new(line, (at.0 * FINE, at.1 * FINE), style))
}

fn style(size: i32, colour: RGBColor, weight: &'static str) -> TextStyle<'static> {
    // The SVG backend divides every size by 1.24.
    let size = f64::from(size * FINE) * 1.24;
    (FONT, size, weight).into_font().color(&colour)
}

fn stroke(colour: RGBColor, width: i32) -> ShapeStyle {
    colour.stroke_width((width * FINE) as u32)
}

/// The style of the thin line: the same colour, mostly transparent.
fn light(colour: RGBColor) -> ShapeStyle {
    colour.mix(0.4).stroke_width(FINE as u32)
}

/// Returns the number of decimals that distinguish the ticks of a range of this size.
fn decimals(span: f64) -> usize {
    (-(span / 6.0).log10().floor()).clamp(0.0, 9.0) as usize
}

/// Formats `value` with this number of decimals, or in scientific notation if that would not fit
/// the margin.
pub(super) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.len() > 8 {
        return format!("{value:.1e}");
    }
    // Remove the sign of a number that rounds to zero.
    let zero = text.chars().all(|c| matches!(c, '-' | '0' | '.'));
    text.strip_prefix('-')
        .filter(|_| zero)
        .unwrap_or(&text)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_the_margin() {
        let values = [0.25, -1e-9, -12.345, 123_456_789.0, 1e12];
        let texts = ["0.25", "0.00", "-12.35", "1.2e8", "1.0e12"];
        assert_eq!(values.map(|value| number(value, 2)), texts);
        assert_eq!([100.0, 10.0, 1.0, 0.05].map(decimals), [0, 0, 1, 3]);
    }
}
