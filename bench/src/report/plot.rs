//! Plots of distributions: the share of all values that do not exceed a value.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use super::numbers::seconds;

/// The values of one name, in ascending order.
pub struct Line {
    /// The name in the legend.
    pub name: String,
    /// The values in seconds.
    pub values: Vec<f64>,
}

/// Colours that colour-blind people can tell apart, too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// The smallest value that is drawn. The axis is logarithmic, so a value that is not positive is drawn at the left
/// end.
const FLOOR: f64 = 1e-9;

/// Draws the lines into a file.
pub fn draw(path: &Path, axis: &str, lines: &[Line]) -> Result<()> {
    let (from, to) = ends(lines);
    let area = SVGBackend::new(path, (860, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d((from..to).log_scale(), 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc(axis)
        .y_desc("share of all")
        .x_label_formatter(&|value: &f64| seconds(*value))
        .y_label_formatter(&|share: &f64| format!("{:.0} %", share * 100.0))
        .light_line_style(WHITE)
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(steps(&line.values, from, to), style))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Returns the ends of the axis, a little below the minimum and a little above the maximum, at least half a decade
/// apart.
fn ends(lines: &[Line]) -> (f64, f64) {
    let drawn =
        || lines.iter().flat_map(|line| &line.values).copied().filter(|value| *value > FLOOR);
    let least = drawn().reduce(f64::min).unwrap_or(FLOOR);
    let most = drawn().reduce(f64::max).unwrap_or(FLOOR);
    (least / 1.3, (most * 1.3).max(least * 3.0))
}

/// Returns the corners of a staircase that rises by one share at each value.
fn steps(values: &[f64], from: f64, to: f64) -> Vec<(f64, f64)> {
    let count = values.len() as f64;
    let mut corners = vec![(from, 0.0)];
    let mut share = 0.0;
    for (n, value) in values.iter().enumerate() {
        let value = value.clamp(from, to);
        corners.push((value, share));
        share = (n + 1) as f64 / count;
        corners.push((value, share));
    }
    corners.push((to, share));
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_staircase_rises_at_each_value_and_ends_at_one() {
        let corners = steps(&[2.0, 4.0], 1.0, 8.0);
        let wanted = [(1.0, 0.0), (2.0, 0.0), (2.0, 0.5), (4.0, 0.5), (4.0, 1.0), (8.0, 1.0)];
        assert_eq!(corners, wanted);
    }

    #[test]
    fn what_was_too_early_stands_at_the_left_end() {
        assert_eq!(steps(&[-3.0], 1.0, 8.0)[1], (1.0, 0.0));
    }

    #[test]
    fn an_axis_has_a_length_even_for_one_value_or_none() {
        for values in [vec![], vec![0.5], vec![-1.0]] {
            let (from, to) = ends(&[Line { name: String::new(), values }]);
            assert!(from > 0.0 && to > from * 2.0, "{from} {to}");
        }
    }
}
