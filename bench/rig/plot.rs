//! Plots of the results, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::cases::Case;
use super::{median, Outcome};
use crate::traffic::Proto;

/// A line of a plot: number of flows and nanoseconds.
type Line = (String, Vec<(f64, f64)>);

/// What the plain cases of UDP add to testpmd, by the number of flows; IPv4's floor beside it.
fn lines(outcomes: &[Outcome]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut point = |name: String, flows: u32, value: f64| {
        let at = lines.iter().position(|(known, _)| *known == name);
        let at = at.unwrap_or_else(|| {
            lines.push((name, Vec::new()));
            lines.len() - 1
        });
        lines[at].1.push((f64::from(flows), value));
    };
    for outcome in outcomes {
        let case = &outcome.case;
        let plain = Case {
            flows: 1_000,
            ..*case
        };
        // Only those for which a figure is to be reached differ in nothing but mode, family and flows.
        if plain.target().is_none() || case.proto != Proto::Udp || case.new {
            continue;
        }
        point(case.to_string(), case.flows, median(&outcome.added()));
        if !outcome.floor.is_empty() {
            let name = format!("{case}, bare loop");
            point(name, case.flows, median(&outcome.floor_added()));
        }
    }
    lines.retain(|(_, points)| points.len() > 1);
    lines
}

/// Plots what ripvsd adds to testpmd, by the number of flows.
///
/// # Errors
/// The file cannot be written.
pub fn added_by_flows(path: &Path, outcomes: &[Outcome]) -> Result<(), String> {
    let lines = lines(outcomes);
    if lines.is_empty() {
        return Ok(());
    }
    draw(path, &lines).map_err(|error| format!("{}: {error}", path.display()))
}

fn draw(path: &Path, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let most = points().map(|(_, y)| *y).fold(50.0, f64::max) * 1.1;
    let flows = points().map(|(x, _)| *x).fold(1_000_000.0, f64::max) * 1.2;
    let root = SVGBackend::new(path, (960, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Added to testpmd's macswap, one core", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d((900.0..flows).log_scale(), 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc("flows")
        .y_desc("ns a packet")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for (index, (name, points)) in lines.iter().enumerate() {
        let bare = name.ends_with("bare loop");
        let color = Palette99::pick(index).to_rgba();
        let style = color.stroke_width(if bare { 1 } else { 2 });
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        let dot = |point: &(f64, f64)| Circle::new(*point, 3, color.filled());
        chart.draw_series(points.iter().map(dot))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(())
}
