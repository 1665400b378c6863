//! Renders pages for a terminal: headings, emphasis and code in colour, no line wider than the terminal.
//!
//! Knows no terminal: the caller says how wide it is, and removes colours if they are not wanted.

use owo_colors::{OwoColorize as _, Style};
use pulldown_cmark::{Event, Tag, TagEnd};

use super::markdown::{Target, events, target};

/// Space before the lines of a code block.
const CODE_INDENT: &str = "    ";
/// Space between the columns of a table.
const GAP: usize = 2;

/// A piece of text without white space, its style, and whether white space comes before it.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    style: Style,
    spaced: bool,
}

impl Word {
    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Renders a page for a terminal of `width` columns. A word that is wider than the terminal is not broken.
pub fn render(text: &str, width: usize) -> String {
    let mut page = Page { width: width.max(20), ..Page::default() };
    for event in events(text) {
        page.event(event);
    }
    page.out
}

/// An open list: the number of its next item, or `None` for bullets.
type List = Option<u64>;

#[derive(Default)]
struct Page {
    width: usize,
    out: String,
    words: Vec<Word>,
    /// Set if the next word follows white space.
    spaced: bool,
    emphasis: usize,
    linked: bool,
    /// The text that is shown after the text of a link, and the link's text so far.
    link: Option<(String, String)>,
    lists: Vec<List>,
    /// The bullet or number of an item whose first line is not written yet.
    mark: Option<String>,
    /// Set inside a code block.
    in_code: bool,
    /// The rows of an open table, beginning with its header.
    rows: Vec<Vec<Vec<Word>>>,
}

impl Page {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.in_code => self.code_lines(&text),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text, self.text_style()),
            Event::Code(code) => self.text(&code, self.text_style().cyan()),
            Event::SoftBreak | Event::HardBreak => self.spaced = true,
            Event::Rule => self.flush("", ""),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { .. } | Tag::Table(_) => self.blank_line(),
            Tag::Paragraph if self.mark.is_none() => self.blank_line(),
            Tag::CodeBlock(_) => {
                self.end_block();
                self.blank_line();
                self.in_code = true;
            }
            Tag::List(first) => {
                self.end_block();
                if self.lists.is_empty() {
                    self.blank_line();
                }
                self.lists.push(first);
            }
            Tag::Item => {
                self.mark = Some(match self.lists.last_mut() {
                    Some(Some(number)) => {
                        let mark = format!("{number}. ");
                        *number += 1;
                        mark
                    }
                    _ => "• ".to_owned(),
                });
            }
            Tag::Strong | Tag::Emphasis => self.emphasis += 1,
            Tag::Link { dest_url, .. } => {
                self.linked = true;
                self.link = Some((shown(&dest_url), String::new()));
            }
            Tag::TableRow | Tag::TableHead => self.rows.push(Vec::new()),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let style = Style::new().bold();
                let style = if level as u8 == 1 { style.underline() } else { style.yellow() };
                self.words.iter_mut().for_each(|word| word.style = style);
                self.flush("", "");
            }
            TagEnd::Paragraph | TagEnd::Item => {
                self.end_block();
                self.mark = None;
            }
            TagEnd::CodeBlock => self.in_code = false,
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::Strong | TagEnd::Emphasis => self.emphasis = self.emphasis.saturating_sub(1),
            TagEnd::Link => {
                self.linked = false;
                if let Some((behind, text)) = self.link.take()
                    && !behind.is_empty()
                    && !behind.ends_with(&format!(" {})", text.to_lowercase()))
                {
                    self.spaced = true;
                    self.text(&behind, Style::new().dimmed());
                }
            }
            TagEnd::TableCell => {
                let words = std::mem::take(&mut self.words);
                self.spaced = false;
                if let Some(row) = self.rows.last_mut() {
                    row.push(words);
                }
            }
            TagEnd::Table => {
                let rows = std::mem::take(&mut self.rows);
                self.out.push_str(&table(&rows, self.width));
            }
            _ => {}
        }
    }

    fn text_style(&self) -> Style {
        let style = Style::new();
        let style = if self.emphasis > 0 { style.bold() } else { style };
        if self.linked { style.underline() } else { style }
    }

    /// Adds text as words.
    fn text(&mut self, text: &str, style: Style) {
        if let Some((_, link)) = &mut self.link {
            link.push_str(text);
        }
        let mut spaced = self.spaced || text.starts_with(char::is_whitespace);
        for word in text.split_whitespace() {
            self.words.push(Word { text: word.to_owned(), style, spaced });
            spaced = true;
        }
        self.spaced = text.ends_with(char::is_whitespace) || (self.spaced && text.is_empty());
    }

    fn code_lines(&mut self, text: &str) {
        for line in text.lines() {
            self.out.push_str(CODE_INDENT);
            self.out.push_str(&line.cyan().to_string());
            self.out.push('\n');
        }
    }

    /// Writes the words of a block at its end, after the mark of its item.
    fn end_block(&mut self) {
        if self.words.is_empty() {
            return;
        }
        let depth = "  ".repeat(self.lists.len().saturating_sub(1));
        let (first, rest) = match (self.mark.take(), self.lists.last()) {
            (Some(mark), _) => (format!("{depth}{mark}"), format!("{depth}{}", " ".repeat(mark.chars().count()))),
            (None, Some(_)) => (format!("{depth}  "), format!("{depth}  ")),
            (None, None) => Default::default(),
        };
        self.flush(&first, &rest);
    }

    /// Writes the words, wrapped; `first` comes before the first line and `rest` before the others.
    fn flush(&mut self, first: &str, rest: &str) {
        let words = std::mem::take(&mut self.words);
        self.spaced = false;
        let width = self.width.saturating_sub(rest.chars().count());
        for (index, line) in wrap(&words, width).iter().enumerate() {
            self.out.push_str(if index == 0 { first } else { rest });
            self.out.push_str(&line.text);
            self.out.push('\n');
        }
    }

    fn blank_line(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }
}

/// The text that is shown after the text of a link.
fn shown(url: &str) -> String {
    match target(url) {
        Target::Topic(name, _) => format!("(sidetone help {name})"),
        Target::Configuration => "(sidetone help sidetone.toml)".to_owned(),
        Target::Outside(url) => format!("({url})"),
        Target::Here(_) | Target::Picture(_) | Target::Unknown(_) => String::new(),
    }
}

/// A line with its colours, and its width without them.
struct Line {
    text: String,
    width: usize,
}

/// Wraps words into lines of at most `width` columns.
fn wrap(words: &[Word], width: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        // Words without white space between them stay together: a comma stays with the code before it.
        let joined: usize = words[index + 1..].iter().take_while(|next| !next.spaced).map(Word::width).sum();
        let needed = word.width() + joined;
        match lines.last_mut() {
            Some(line) if !word.spaced || line.width + 1 + needed <= width => {
                if word.spaced {
                    line.text.push(' ');
                    line.width += 1;
                }
                line.text.push_str(&word.text.style(word.style).to_string());
                line.width += word.width();
            }
            _ => lines.push(Line { text: word.text.style(word.style).to_string(), width: word.width() }),
        }
    }
    lines
}

/// A table in columns; if these do not fit, each row as a block: its first cell, and below it the others.
fn table(rows: &[Vec<Vec<Word>>], width: usize) -> String {
    let Some((header, body)) = rows.split_first() else { return String::new() };
    match columns(rows, width) {
        Some(widths) => {
            let mut out = row(header, &widths, true);
            for cells in body {
                out.push_str(&row(cells, &widths, false));
            }
            out
        }
        None => body.iter().map(|cells| block(header, cells, width)).collect(),
    }
}

/// The widths of the columns; `None` if the longest words of all columns do not fit side by side.
fn columns(rows: &[Vec<Vec<Word>>], width: usize) -> Option<Vec<usize>> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let natural = |column: usize| cells(column).map(|cell| line_width(cell)).max().unwrap_or(0);
    let least = |column: usize| cells(column).map(|cell| longest(cell)).max().unwrap_or(0);
    let room = width.checked_sub(GAP * count.saturating_sub(1))?;
    let mut widths: Vec<usize> = (0..count).map(least).collect();
    let mut free = room.checked_sub(widths.iter().sum())?;
    // Narrow columns first get their full width; wide ones share the rest.
    let mut open: Vec<usize> = (0..count).collect();
    open.sort_by_key(|column| natural(*column));
    for (index, column) in open.iter().enumerate() {
        let share = free / (open.len() - index);
        let wanted = natural(*column).saturating_sub(widths[*column]).min(share);
        widths[*column] += wanted;
        free -= wanted;
    }
    Some(widths)
}

fn line_width(words: &[Word]) -> usize {
    wrap(words, usize::MAX).iter().map(|line| line.width).sum()
}

fn longest(words: &[Word]) -> usize {
    wrap(words, 0).iter().map(|line| line.width).max().unwrap_or(0)
}

fn row(cells: &[Vec<Word>], widths: &[usize], bold: bool) -> String {
    let cells: Vec<Vec<Line>> = widths
        .iter()
        .enumerate()
        .map(|(column, width)| {
            let mut words = cells.get(column).cloned().unwrap_or_default();
            if bold {
                words.iter_mut().for_each(|word| word.style = Style::new().bold());
            }
            wrap(&words, *width)
        })
        .collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    let mut out = String::new();
    for at in 0..height {
        let mut missing = 0;
        for (lines, width) in cells.iter().zip(widths) {
            let line = lines.get(at);
            if let Some(line) = line {
                out.push_str(&" ".repeat(missing));
                out.push_str(&line.text);
                missing = 0;
            }
            missing += width.saturating_sub(line.map_or(0, |line| line.width)) + GAP;
        }
        out.push('\n');
    }
    out
}

fn block(header: &[Vec<Word>], cells: &[Vec<Word>], width: usize) -> String {
    let mut out = String::new();
    for (column, words) in cells.iter().enumerate().filter(|(_, words)| !words.is_empty()) {
        let indent = if column == 0 { "" } else { "  " };
        let mut all = Vec::new();
        // In a table of two columns the second explains the first, so its heading is not needed.
        if column > 0 && header.len() > 2 {
            let name = header.get(column).map(Vec::as_slice).unwrap_or_default();
            all.extend(name.iter().map(|word| Word { style: Style::new().dimmed(), ..word.clone() }));
            all.push(Word { text: ":".to_owned(), style: Style::new().dimmed(), spaced: false });
        }
        let first = all.is_empty();
        let words = words.iter().enumerate();
        all.extend(words.map(|(at, word)| Word { spaced: word.spaced || (at == 0 && !first), ..word.clone() }));
        for line in wrap(&all, width.saturating_sub(indent.len())) {
            out.push_str(indent);
            out.push_str(&line.text);
            out.push('\n');
        }
    }
    out
}
