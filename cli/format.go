package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode/utf8"

	"hull/errdef"
)

// formatUsage is the help of --format for lists.
const formatUsage = "Print with a template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'"

// column is one of a list's default table.
type column struct {
	method string // of the row, the name templates use
	header string
}

// printRows prints rows as --format says. Each row is a value whose methods without arguments are its fields.
// What a terminal is too narrow for is cut unless whole is set.
func (a *app) printRows(format string, columns []column, headers map[string]string, rows []any, whole bool) error {
	switch tmpl, table := strings.CutPrefix(format, "table"); {
	case format == "" || format == "table":
		return a.printTable(columns, rows, whole)
	case table && (strings.HasPrefix(tmpl, " ") || strings.HasPrefix(tmpl, "\\t") || strings.HasPrefix(tmpl, "\t")):
		return a.printTemplateTable(strings.TrimSpace(tmpl), headers, rows)
	}
	return a.printTemplate(format, rows)
}

// checkFormat finds a template that cannot be read before the engine is asked for anything.
func checkFormat(format string) error {
	_, err := parseTemplate(strings.TrimPrefix(format, "table"))
	return err
}

// printIDs is --quiet, which wins over --format.
func (a *app) printIDs(format string, rows []any) error {
	if format != "" && format != "table" {
		a.err.println("WARNING: Ignoring custom format, because both --format and --quiet are set.")
	}
	var b strings.Builder
	var fields fieldFinder
	for _, r := range rows {
		b.WriteString(fields.of(r, "ID") + "\n")
	}
	_, err := a.out.Write([]byte(b.String()))
	return err
}

func (a *app) printTable(columns []column, rows []any, whole bool) error {
	lines := make([][]string, 0, len(rows)+1)
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i] = c.header
	}
	lines = append(lines, head)
	var fields fieldFinder
	for _, r := range rows {
		line := make([]string, len(columns))
		for i, c := range columns {
			line[i] = a.cell(fields.of(r, c.method))
		}
		lines = append(lines, line)
	}
	if width, _ := a.out.size(); width > 0 && !whole {
		if len(rows) > 0 {
			lines = leaveOut(lines, columns, rows[0], width)
		}
		fit(lines, width)
	}
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(strings.Join(l, "\t"))
		b.WriteByte('\n')
	}
	return a.printTabs(b.Bytes())
}

// printTabs lays out as Docker does. It writes once: a tabwriter by itself writes each cell.
func (a *app) printTabs(text []byte) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 10, 1, 3, ' ', 0)
	w.Write(text) // to memory
	w.Flush()
	_, err := a.out.Write(b.Bytes())
	return err
}

// cell keeps a value on its line and in its column when a person looks at it.
func (a *app) cell(s string) string {
	if !a.out.terminal {
		return s
	}
	return onLine(s)
}

// onLine keeps a value on its line whoever reads it: a report that a build keeps must have no lines that the name of a
// stranger's file wrote. Programs that need the very bytes ask for JSON.
func onLine(s string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(string(visible([]byte(s))))
}

// knowing rows call some of their methods by name themselves: those of the default table, for lists of a thousand. By
// reflection they are a tenth of what such a list takes.
type knowing interface {
	known(field string) (text string, ok bool)
}

// fieldFinder calls the methods of rows by their names. To find one takes longer than the call.
type fieldFinder struct {
	row    reflect.Type
	places map[string]int
}

func (f *fieldFinder) of(row any, method string) string {
	if k, ok := row.(knowing); ok {
		if s, ok := k.known(method); ok {
			return s
		}
	}
	v := reflect.ValueOf(row)
	if f.row != v.Type() {
		f.row, f.places = v.Type(), map[string]int{}
	}
	i, ok := f.places[method]
	if !ok {
		m, _ := f.row.MethodByName(method)
		i = m.Index
		f.places[method] = i
	}
	return v.Method(i).Call(nil)[0].String()
}

// gap is what tabs puts between two columns, and least the width of all but the last with it.
const gap, least = 3, 10

// sparing rows say which of their columns a narrow terminal does without, the first one first.
type sparing interface{ spare() []string }

// spareWidth is what a column that can be done without keeps while another one is left out.
const spareWidth = 20

// leaveOut takes columns that row can spare away from lines, until those that are left fit in width when the spare ones
// among them are shortened.
func leaveOut(lines [][]string, columns []column, row any, width int) [][]string {
	r, ok := row.(sparing)
	if !ok {
		return lines
	}
	columns = slices.Clone(columns)
	for spare := r.spare(); ; spare = spare[1:] {
		floor := widthsOf(lines)
		for i, c := range columns {
			if slices.Contains(spare, c.method) {
				floor[i] = min(floor[i], spareWidth)
			}
		}
		if total(floor) <= width || len(spare) == 0 {
			shorten(lines, floor, width)
			return lines
		}
		i := slices.IndexFunc(columns, func(c column) bool { return c.method == spare[0] })
		if i < 0 {
			continue
		}
		columns = slices.Delete(columns, i, i+1)
		for n, l := range lines {
			lines[n] = slices.Delete(l, i, i+1)
		}
	}
}

// fit shortens the widest cells until a line is at most width characters, the last column included. A column is
// not made narrower than its header or 7 characters: on a terminal narrower than that lines do wrap.
func fit(lines [][]string, width int) {
	floor := make([]int, len(lines[0]))
	for i, head := range lines[0] {
		floor[i] = max(utf8.RuneCountInString(head), least-gap)
	}
	shorten(lines, floor, width)
}

// shorten cuts the widest cells until a line fits in width or all columns are at their floor.
func shorten(lines [][]string, floor []int, width int) {
	widths := widthsOf(lines)
	for total(widths) > width {
		widest := -1
		for i := range widths {
			if widths[i] > floor[i] && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	for _, l := range lines {
		for i := range l {
			l[i] = cut(l[i], widths[i])
		}
	}
}

func widthsOf(lines [][]string) []int {
	widths := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, cell := range l {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

func total(widths []int) int {
	sum := 0
	for i, w := range widths {
		if i < len(widths)-1 {
			w = max(w+gap, least)
		}
		sum += w
	}
	return sum
}

// cut shortens s to n characters, the last of which then says that something is missing.
func cut(s string, n int) string {
	if n < 1 || utf8.RuneCountInString(s) <= n {
		return s
	}
	for i := range s {
		if n--; n == 0 {
			return s[:i] + "…"
		}
	}
	return s
}

func (a *app) printTemplate(format string, rows []any) error {
	if format == "json" {
		format = "{{json .}}"
	}
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, r := range rows {
		if err := execute(t, &b, r); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	_, err = a.out.Write(b.Bytes())
	return err
}

func (a *app) printTemplateTable(format string, headers map[string]string, rows []any) error {
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := headerTemplate(format, &b, headers); err != nil {
		return err
	}
	b.WriteByte('\n')
	for _, r := range rows {
		if err := execute(t, &b, r); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	return a.printTabs(b.Bytes())
}

// headerRow stands in for a row when the line of headers is made from the same template.
type headerRow map[string]string

// Label is the header of one label: its last part, in words.
func (headerRow) Label(name string) string {
	name = name[strings.LastIndex(name, ".")+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(name)
}

func headerTemplate(format string, b *bytes.Buffer, headers map[string]string) error {
	f := templateFuncs()
	// Functions that change a value leave a header alone.
	same := func(s string) string { return s }
	for _, name := range [...]string{"json", "title", "lower", "upper"} {
		f[name] = same
	}
	f["split"] = func(s, _ string) []string { return []string{s} }
	f["join"] = func(s any, _ string) any { return s }
	f["truncate"] = func(s string, _ int) string { return s }
	t, err := template.New("").Funcs(f).Parse(unescape(format))
	if err != nil {
		return templateError(err)
	}
	return execute(t, b, headerRow(headers))
}

func parseTemplate(format string) (*template.Template, error) {
	t, err := template.New("").Funcs(templateFuncs()).Parse(unescape(format))
	if err != nil {
		return nil, templateError(err)
	}
	return t, nil
}

// unescape turns \t and \n typed in a shell's quotes into what they mean.
func unescape(s string) string { return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s) }

func execute(t *template.Template, b *bytes.Buffer, row any) error {
	if err := t.Execute(b, row); err != nil {
		return templateError(err)
	}
	return nil
}

func templateError(err error) error {
	return errdef.Invalid("--format: %s", strings.TrimPrefix(err.Error(), "template: "))
}

// templateFuncs are those Docker's templates have beside Go's.
func templateFuncs() template.FuncMap {
	return template.FuncMap{
		"json":     jsonText,
		"split":    strings.Split,
		"join":     strings.Join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
		"println":  func(v ...any) string { return fmt.Sprintln(v...) },
	}
}

func jsonText(v any) (string, error) {
	if r, ok := v.(row); ok {
		b, err := json.Marshal(fields(r))
		return string(b), err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimRight(b.String(), "\n"), nil
}

func title(s string) string {
	word := false
	return strings.Map(func(r rune) rune {
		start := !word
		word = r != ' ' && r != '\t' && r != '\n'
		if start {
			return []rune(strings.ToTitle(string(r)))[0]
		}
		return r
	}, s)
}

// pad puts spaces around what is not empty.
func pad(s string, before, after int) string {
	if s == "" || before < 0 || after < 0 {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

func truncate(s string, n int) string {
	r := []rune(s)
	if n < 0 || len(r) <= n {
		return s
	}
	return string(r[:n])
}

// row marks the types whose methods are fields of a list.
type row interface{ isRow() }

// fields are the values of a row by name, for json.
func fields(r row) map[string]any {
	m := map[string]any{}
	v := reflect.ValueOf(r)
	p, partial := r.(interface{ lacks(field string) bool })
	for i := range v.NumMethod() {
		t := v.Method(i).Type()
		if t.NumIn() == 0 && t.NumOut() == 1 && !(partial && p.lacks(v.Type().Method(i).Name)) {
			m[v.Type().Method(i).Name] = v.Method(i).Call(nil)[0].Interface()
		}
	}
	return m
}
