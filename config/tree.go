package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

type kind uint8

const (
	isString kind = iota
	isInt
	isBool
	isList
	isTable
	isOther // fractions, dates, null: nothing here takes them
)

// value is one value of a file, of either format, with the line it stands on.
type value struct {
	line    int
	kind    kind
	text    string // of a string or number, or "true"
	list    []*value
	members []member // of a table, in the order of the file
	closed  bool     // a TOML table that is complete
	json    bool     // the root of a JSON document
}

type member struct {
	name  string
	value *value
}

// String names the kind, for messages.
func (v *value) String() string {
	switch v.kind {
	case isString:
		return "the text " + fmt.Sprintf("%q", v.text)
	case isInt, isBool:
		return v.text
	case isList:
		return "a list"
	case isTable:
		return "a table"
	}
	return v.text
}

// get returns the member of a table, or nil.
func (v *value) get(name string) *value {
	for _, m := range v.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

func (v *value) put(name string, x *value) error {
	if old := v.get(name); old != nil {
		return mistakeAt(x, "%s is set already, in line %d", name, old.line)
	}
	v.members = append(v.members, member{name, x})
	return nil
}

// parse reads a document: JSON if it begins with a brace, which no TOML document does.
func parse(text []byte) (*value, error) {
	if b := bytes.TrimLeft(text, " \t\r\n"); len(b) > 0 && b[0] == '{' {
		return parseJSON(text)
	}
	return parseTOML(text)
}

// tomlDoc is a document being read.
type tomlDoc struct {
	unstable.Parser
	text []byte
	seen int // lines are counted up to this offset, for documents are read forwards
	line int
}

func parseTOML(text []byte) (*value, error) {
	d := &tomlDoc{text: text, line: 1}
	d.Reset(text)
	root := &value{kind: isTable, line: 1}
	at := root
	for d.NextExpression() {
		var err error
		switch e := d.Expression(); e.Kind {
		case unstable.Table:
			at, err = d.table(root, e)
		case unstable.ArrayTable:
			at, err = d.arrayTable(root, e)
		case unstable.KeyValue:
			err = d.keyValue(at, e)
		}
		if err != nil {
			return nil, err
		}
	}
	var bad *unstable.ParserError
	if err := d.Error(); errors.As(err, &bad) {
		return nil, &problem{d.lineAt(d.Range(bad.Highlight).Offset), bad.Message}
	} else if err != nil {
		return nil, err
	}
	return root, nil
}

func (d *tomlDoc) lineAt(offset uint32) int {
	if int(offset) < d.seen {
		d.seen, d.line = 0, 1
	}
	d.line += bytes.Count(d.text[d.seen:offset], []byte{'\n'})
	d.seen = int(offset)
	return d.line
}

// key returns the parts of a dotted key and its line.
func (d *tomlDoc) key(e *unstable.Node) (parts []string, line int) {
	for it := e.Key(); it.Next(); {
		k := it.Node()
		if parts = append(parts, string(k.Data)); len(parts) == 1 {
			line = d.lineAt(k.Raw.Offset)
		}
	}
	return parts, line
}

// descend walks from table to table, making those that are missing.
func descend(at *value, parts []string, line int) (*value, error) {
	for _, part := range parts {
		next := at.get(part)
		if next != nil && next.kind == isList && len(next.list) > 0 {
			next = next.list[len(next.list)-1] // the last of [[tables]]
		}
		switch {
		case next == nil:
			next = &value{kind: isTable, line: line}
			at.members = append(at.members, member{part, next})
		case next.kind != isTable || next.closed:
			return nil, &problem{line, fmt.Sprintf("%s is set already, in line %d", part, next.line)}
		}
		at = next
	}
	return at, nil
}

// table is [a.b]: said once of each.
func (d *tomlDoc) table(root *value, e *unstable.Node) (*value, error) {
	parts, line := d.key(e)
	up, last := parts[:len(parts)-1], parts[len(parts)-1]
	at, err := descend(root, up, line)
	if err != nil {
		return nil, err
	}
	if old := at.get(last); old != nil && (old.kind != isTable || old.closed || len(old.members) > 0 && !old.onlyTables()) {
		return nil, &problem{line, fmt.Sprintf("%s is set already, in line %d", last, old.line)}
	}
	return descend(at, parts[len(parts)-1:], line)
}

// onlyTables says of a table that it was made on the way to others, and may still be opened itself.
func (v *value) onlyTables() bool {
	return !slices.ContainsFunc(v.members, func(m member) bool { return m.value.kind != isTable })
}

// arrayTable is [[a.b]]: one more table of a list.
func (d *tomlDoc) arrayTable(root *value, e *unstable.Node) (*value, error) {
	parts, line := d.key(e)
	at, err := descend(root, parts[:len(parts)-1], line)
	if err != nil {
		return nil, err
	}
	last := parts[len(parts)-1]
	list := at.get(last)
	switch {
	case list == nil:
		list = &value{kind: isList, line: line}
		at.members = append(at.members, member{last, list})
	case list.kind != isList || list.closed:
		return nil, &problem{line, fmt.Sprintf("%s is set already, in line %d", last, list.line)}
	}
	t := &value{kind: isTable, line: line}
	list.list = append(list.list, t)
	return t, nil
}

func (d *tomlDoc) keyValue(at *value, e *unstable.Node) error {
	parts, line := d.key(e)
	v, err := d.value(e.Value(), line)
	if err != nil {
		return err
	}
	if at, err = descend(at, parts[:len(parts)-1], line); err != nil {
		return err
	}
	return at.put(parts[len(parts)-1], v)
}

// value reads one value, which stands on line unless it knows better.
func (d *tomlDoc) value(n *unstable.Node, line int) (*value, error) {
	v := &value{line: line, text: string(n.Data), kind: isOther}
	switch n.Kind {
	case unstable.String:
		v.kind = isString
		if n.Raw.Length > 0 {
			v.line = d.lineAt(n.Raw.Offset)
		}
	case unstable.Integer:
		v.kind, v.text = isInt, strings.ReplaceAll(v.text, "_", "")
	case unstable.Bool:
		v.kind = isBool
	case unstable.Array:
		v.kind, v.closed = isList, true
		for it := n.Children(); it.Next(); {
			x, err := d.value(it.Node(), line)
			if err != nil {
				return nil, err
			}
			v.list = append(v.list, x)
		}
	case unstable.InlineTable:
		v.kind = isTable
		for it := n.Children(); it.Next(); {
			if err := d.keyValue(v, it.Node()); err != nil {
				return nil, err
			}
		}
		v.closed = true
	}
	return v, nil
}

// jsonDoc is a JSON document being read.
type jsonDoc struct {
	*json.Decoder
	text []byte
}

func parseJSON(text []byte) (*value, error) {
	d := &jsonDoc{json.NewDecoder(bytes.NewReader(text)), text}
	d.UseNumber()
	v, err := d.value()
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			v.json = true
			return v, nil
		}
		if err == nil {
			err = errors.New("there is more behind the closing brace")
		}
	}
	var p *problem
	if errors.As(err, &p) {
		return nil, err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &problem{1 + bytes.Count(bytes.TrimSpace(text), []byte{'\n'}), "the document ends in the middle"}
	}
	return nil, &problem{d.lineNow(), err.Error()}
}

func (d *jsonDoc) lineNow() int {
	return 1 + bytes.Count(d.text[:min(d.InputOffset(), int64(len(d.text)))], []byte{'\n'})
}

func (d *jsonDoc) value() (*value, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	v := &value{line: d.lineNow()}
	switch t := t.(type) {
	case json.Delim:
		v.kind = isTable
		if t == '[' {
			v.kind = isList
		}
		return v, d.fill(v)
	case string:
		v.kind, v.text = isString, t
	case json.Number:
		v.kind, v.text = isInt, t.String()
		if strings.ContainsAny(v.text, ".eE") {
			v.kind = isOther
		}
	case bool:
		v.kind, v.text = isBool, fmt.Sprint(t)
	default:
		v.kind, v.text = isOther, "null"
	}
	return v, nil
}

// fill reads what is in a list or table, and its end.
func (d *jsonDoc) fill(v *value) error {
	for d.More() {
		if v.kind == isList {
			x, err := d.value()
			if err != nil {
				return err
			}
			v.list = append(v.list, x)
			continue
		}
		name, err := d.Token()
		if err != nil {
			return err
		}
		x, err := d.value()
		if err != nil {
			return err
		}
		if err := v.put(name.(string), x); err != nil { // the decoder takes no other names
			return err
		}
	}
	_, err := d.Token()
	return err
}
