// Package plainjson reads and writes JSON for programs that handle one document and end. Before its first value
// of a type, encoding/json builds tables for that type and every type below it: for an OCI configuration, with its
// Windows and Solaris parts, that takes 0.7 ms, ten times the decoding. This package looks at the types it meets
// and remembers nothing.
//
//	err := plainjson.Unmarshal(data, &spec)
//	data, err := plainjson.Marshal(&spec)
//
// It does what encoding/json does with booleans, numbers, strings, pointers, slices, arrays, maps with string keys,
// structs and types that marshal to text. Beware: member names match exactly, []byte is an array of numbers, and
// interfaces, embedded pointers, the option "string" and MarshalJSON are errors. Only for documents of our own; what
// others wrote is encoding/json's.
package plainjson

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a document, and with it the stack.
const maxDepth = 100

// member is what a struct field is in JSON.
type member struct {
	name                string
	omitEmpty, omitZero bool
	embedded            bool // a struct whose members count as the outer one's
}

// memberOf reads the tag of field i of t; false when the field is no member.
func memberOf(f *reflect.StructField) (m member, ok bool, err error) {
	tag := f.Tag.Get("json")
	if !f.IsExported() || tag == "-" {
		return m, false, nil
	}
	if f.Anonymous {
		if f.Type.Kind() != reflect.Struct || tag != "" {
			return m, false, fmt.Errorf("plainjson: embedded field %s", f.Name)
		}
		return member{embedded: true}, true, nil
	}
	name, options, _ := strings.Cut(tag, ",")
	if m.name = name; name == "" {
		m.name = f.Name
	}
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "":
		case "omitempty":
			m.omitEmpty = true
		case "omitzero":
			m.omitZero = true
		default:
			return m, false, fmt.Errorf("plainjson: option %q of field %s", o, f.Name)
		}
	}
	return m, true, nil
}

// Marshal returns v as JSON, on one line.
func Marshal(v any) ([]byte, error) { return appendValue(nil, reflect.ValueOf(v), 0) }

func appendValue(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, errors.New("plainjson: nested too deep")
	}
	if !v.IsValid() {
		return append(b, "null"...), nil
	}
	if v.Kind() != reflect.Pointer && v.CanInterface() {
		if m, ok := v.Interface().(encoding.TextMarshaler); ok {
			text, err := m.MarshalText()
			return appendString(b, string(text)), err
		}
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case reflect.Float32, reflect.Float64:
		return strconv.AppendFloat(b, v.Float(), 'g', -1, v.Type().Bits()), nil
	case reflect.String:
		return appendString(b, v.String()), nil
	case reflect.Pointer:
		return appendValue(b, v.Elem(), depth+1)
	case reflect.Interface:
		if v.IsNil() {
			return append(b, "null"...), nil
		}
	case reflect.Slice, reflect.Array:
		return appendList(b, v, depth)
	case reflect.Map:
		return appendMap(b, v, depth)
	case reflect.Struct:
		return appendStruct(b, v, depth)
	}
	return nil, fmt.Errorf("plainjson: cannot write a %s", v.Type())
}

func appendList(b []byte, v reflect.Value, depth int) (_ []byte, err error) {
	if v.Kind() == reflect.Slice && v.IsNil() {
		return append(b, "null"...), nil
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, v.Index(i), depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendMap(b []byte, v reflect.Value, depth int) (_ []byte, err error) {
	if v.IsNil() {
		return append(b, "null"...), nil
	}
	if v.Type().Key().Kind() != reflect.String {
		return nil, fmt.Errorf("plainjson: cannot write a %s", v.Type())
	}
	b = append(b, '{')
	comma := false
	for it := v.MapRange(); it.Next(); comma = true {
		if comma {
			b = append(b, ',')
		}
		b = append(appendString(b, it.Key().String()), ':')
		if b, err = appendValue(b, it.Value(), depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendStruct(b []byte, v reflect.Value, depth int) ([]byte, error) {
	b = append(b, '{')
	start := len(b)
	b, err := appendMembers(b, v, start, depth)
	return append(b, '}'), err
}

// appendMembers appends the members of v to those of the object that begins at start.
func appendMembers(b []byte, v reflect.Value, start, depth int) (_ []byte, err error) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		m, ok, err := memberOf(&f)
		if err != nil {
			return nil, err
		}
		x := v.Field(i)
		if !ok || m.omitEmpty && isEmpty(x) || m.omitZero && isZero(x) {
			continue
		}
		if m.embedded {
			if b, err = appendMembers(b, x, start, depth); err != nil {
				return nil, err
			}
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(appendString(b, m.name), ':')
		if b, err = appendValue(b, x, depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.Array, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func isZero(v reflect.Value) bool {
	if z, ok := v.Interface().(interface{ IsZero() bool }); ok {
		return z.IsZero()
	}
	return v.IsZero()
}

func appendString(b []byte, s string) []byte { return append(AppendEscaped(append(b, '"'), s), '"') }

// AppendEscaped appends text as the inside of a JSON string; what is not UTF-8 becomes U+FFFD, byte by byte.
func AppendEscaped[T string | []byte](b []byte, text T) []byte {
	const hex = "0123456789abcdef"
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			var head [utf8.UTFMax]byte
			if r, n := utf8.DecodeRune(head[:copy(head[:], text[i:])]); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		b = append(b, text[from:i]...)
		switch {
		case c >= utf8.RuneSelf:
			b = append(b, `\ufffd`...)
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(b, text[from:]...)
}

// Unmarshal fills what v points to from the one JSON value in data. Members that v does not have are skipped.
func Unmarshal(data []byte, v any) error {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return errors.New("plainjson: not a pointer")
	}
	d := &decoder{data: data}
	if err := d.value(p.Elem(), 0); err != nil {
		return err
	}
	if d.space(); d.at < len(d.data) {
		return d.fail("something behind the end")
	}
	return nil
}

type decoder struct {
	data []byte
	at   int
}

func (d *decoder) fail(what string) error {
	return fmt.Errorf("damaged JSON at byte %d: %s", d.at, what)
}

// space goes to the next byte that means something and returns it; 0 at the end.
func (d *decoder) space() byte {
	for ; d.at < len(d.data); d.at++ {
		switch c := d.data[d.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (d *decoder) word(w string) bool {
	if !strings.HasPrefix(string(d.data[d.at:min(len(d.data), d.at+len(w))]), w) {
		return false
	}
	d.at += len(w)
	return true
}

// value decodes the next value into v; an invalid v skips it.
func (d *decoder) value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return d.fail("nested too deep")
	}
	c := d.space()
	if c == 'n' {
		if !d.word("null") {
			return d.fail("unknown word")
		}
		if v.IsValid() {
			switch v.Kind() {
			case reflect.Pointer, reflect.Slice, reflect.Map:
				v.SetZero()
			}
		}
		return nil
	}
	if v.IsValid() && v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(v.Elem(), depth+1)
	}
	switch {
	case c == '{':
		return d.object(v, depth)
	case c == '[':
		return d.list(v, depth)
	case c == '"':
		s, err := d.text()
		if err != nil || !v.IsValid() {
			return err
		}
		return d.setText(v, s)
	case c == 't' && d.word("true"), c == 'f' && d.word("false"):
		if !v.IsValid() {
			return nil
		}
		if v.Kind() != reflect.Bool {
			return d.mismatch("a boolean", v)
		}
		v.SetBool(c == 't')
		return nil
	}
	return d.number(v)
}

func (d *decoder) mismatch(what string, v reflect.Value) error {
	return d.fail(what + " where there should be a " + v.Type().String())
}

func isText(v reflect.Value) bool {
	if !v.CanAddr() {
		return false
	}
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

func (d *decoder) setText(v reflect.Value, s string) error {
	if isText(v) {
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
	}
	if v.Kind() != reflect.String {
		return d.mismatch("a string", v)
	}
	v.SetString(s)
	return nil
}

func (d *decoder) number(v reflect.Value) error {
	from := d.at
	for d.at < len(d.data) && strings.IndexByte("+-.0123456789eE", d.data[d.at]) >= 0 {
		d.at++
	}
	s := string(d.data[from:d.at])
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || strings.TrimLeft(s, "-0123456789") == s && s != "" && s[0] != '-' {
		return d.fail("no value")
	}
	if !v.IsValid() {
		return nil
	}
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			return d.mismatch("number "+s, v)
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			return d.mismatch("number "+s, v)
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		if err != nil || v.OverflowFloat(f) {
			return d.mismatch("number "+s, v)
		}
		v.SetFloat(f)
	default:
		return d.mismatch("number "+s, v)
	}
	return nil
}

func (d *decoder) list(v reflect.Value, depth int) error {
	if v.IsValid() {
		if v.Kind() != reflect.Slice {
			return d.mismatch("a list", v)
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	}
	d.at++
	if d.space() == ']' {
		d.at++
		return nil
	}
	for {
		var x reflect.Value
		if v.IsValid() {
			n := v.Len()
			if n == v.Cap() {
				v.Grow(max(4, n))
			}
			v.SetLen(n + 1)
			x = v.Index(n)
			x.SetZero()
		}
		if err := d.value(x, depth+1); err != nil {
			return err
		}
		more, err := d.next(']')
		if !more || err != nil {
			return err
		}
	}
}

// next goes over a comma, or over the end of a list or object.
func (d *decoder) next(end byte) (more bool, err error) {
	switch c := d.space(); c {
	case ',', end:
		d.at++
		return c == ',', nil
	}
	return false, d.fail("neither a comma nor " + string(end))
}

func (d *decoder) object(v reflect.Value, depth int) error {
	if v.IsValid() {
		switch v.Kind() {
		case reflect.Struct:
			if isText(v) {
				return d.mismatch("an object", v)
			}
		case reflect.Map:
			if v.Type().Key().Kind() != reflect.String {
				return d.mismatch("an object", v)
			}
			if v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			}
		default:
			return d.mismatch("an object", v)
		}
	}
	d.at++
	if d.space() == '}' {
		d.at++
		return nil
	}
	for near := 0; ; {
		if d.space() != '"' {
			return d.fail("no member name")
		}
		name, err := d.text()
		if err != nil {
			return err
		}
		if d.space() != ':' {
			return d.fail("no colon")
		}
		d.at++
		if err := d.member(v, name, &near, depth); err != nil {
			return err
		}
		more, err := d.next('}')
		if !more || err != nil {
			return err
		}
	}
}

// member decodes the member of v with the given name. For a struct the search begins at near: documents of ours have
// their members in the order of the fields.
func (d *decoder) member(v reflect.Value, name string, near *int, depth int) error {
	if !v.IsValid() {
		return d.value(v, depth+1)
	}
	if v.Kind() == reflect.Map {
		x := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(x, depth+1); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), x)
		return nil
	}
	x, err := find(v, name, near)
	if err != nil {
		return err
	}
	return d.value(x, depth+1)
}

// find returns the member of the struct v; not a valid value when there is none.
func find(v reflect.Value, name string, near *int) (x reflect.Value, err error) {
	t := v.Type()
	for n := range t.NumField() {
		i := (*near + n) % t.NumField()
		f := t.Field(i)
		m, ok, err := memberOf(&f)
		if err != nil {
			return x, err
		}
		if ok && m.embedded {
			if x, err := find(v.Field(i), name, new(int)); err != nil || x.IsValid() {
				return x, err
			}
			continue
		}
		if ok && m.name == name {
			*near = i + 1
			return v.Field(i), nil
		}
	}
	return x, nil
}

// text decodes the string that begins here.
func (d *decoder) text() (string, error) {
	d.at++
	from := d.at
	for ; d.at < len(d.data); d.at++ {
		switch c := d.data[d.at]; {
		case c == '"':
			s := string(d.data[from:d.at])
			d.at++
			return valid(s), nil
		case c == '\\':
			return d.escaped(append([]byte(nil), d.data[from:d.at]...))
		case c < ' ':
			return "", d.fail("control character in a string")
		}
	}
	return "", d.fail("a string without end")
}

// escaped decodes the rest of a string whose beginning is s.
func (d *decoder) escaped(s []byte) (string, error) {
	for d.at < len(d.data) {
		c := d.data[d.at]
		d.at++
		switch {
		case c == '"':
			return valid(string(s)), nil
		case c < ' ':
			return "", d.fail("control character in a string")
		case c != '\\':
			s = append(s, c)
			continue
		}
		if d.at == len(d.data) {
			break
		}
		c = d.data[d.at]
		d.at++
		if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
			s = append(s, "\"\\/\b\f\n\r\t"[i])
			continue
		}
		if c != 'u' {
			return "", d.fail("unknown escape")
		}
		r, ok := d.hex()
		if !ok {
			return "", d.fail("no four hexadecimal digits")
		}
		if utf16.IsSurrogate(r) {
			r = d.surrogate(r)
		}
		s = utf8.AppendRune(s, r)
	}
	return "", d.fail("a string without end")
}

// valid replaces what is not UTF-8 by U+FFFD, byte by byte.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

func (d *decoder) hex() (rune, bool) {
	if d.at+4 > len(d.data) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(d.data[d.at:d.at+4]), 16, 16)
	d.at += 4
	return rune(n), err == nil
}

// surrogate joins r with the second half behind it, if there is one.
func (d *decoder) surrogate(r rune) rune {
	at := d.at
	if d.word(`\u`) {
		if low, ok := d.hex(); ok {
			if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
				return both
			}
		}
	}
	d.at = at
	return utf8.RuneError
}
