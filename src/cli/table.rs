//! Draws plain tables on a terminal. Knows nothing of their contents.

/// Draws lines of cells; the first line is the header. From column `numbers_from` on, cells are aligned to the right.
pub(crate) fn draw(lines: &[Vec<String>], numbers_from: usize) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                if column >= numbers_from { format!("{padding}{cell}") } else { format!("{cell}{padding}") }
            })
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let lines = [["name", "n"], ["é", "100"]].map(|line| line.map(str::to_owned).to_vec());
        assert_eq!(super::draw(&lines, 1), "name    n\né     100\n");
    }
}
