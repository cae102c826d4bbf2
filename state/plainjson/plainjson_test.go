package plainjson

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// every is a value of each kind of thing that there may be.
type every struct {
	Bool     bool
	Int      int8    `json:"int"`
	Uint     uint64  `json:"uint,omitempty"`
	Float    float64 `json:"float,omitempty"`
	Text     string  `json:"text,omitempty"`
	Pointer  *int    `json:"pointer,omitempty"`
	Bare     *string
	List     []string           `json:"list"`
	Deep     [][]*every         `json:"deep,omitempty"`
	Map      map[string][]int16 `json:"map,omitempty"`
	Time     time.Time          `json:"time,omitzero"`
	Mode     os.FileMode        `json:"mode"`
	Struct   struct{ A, B rune }
	skipped  int
	Excluded int `json:"-"`
	Inner
}

// Inner is embedded.
type Inner struct {
	InnerInt  int `json:"innerInt,omitempty"`
	InnerText string
}

// documents that both must take alike, or refuse alike.
var documents = []string{
	`{}`, ` { "Bool" : true , "int":-128, "uint":18446744073709551615, "float":-1.5e-3, "text":"x" } `,
	`{"pointer":5,"Bare":"y","list":[],"deep":[[null,{"int":3}],null],"map":{"a":[1,-2],"b":null,"":[]}}`,
	`{"text":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 \ud800 \ud800\u0041 é"}`,
	`{"time":"2026-11-23T10:00:00.123456789+01:00","mode":420,"Struct":{"B":7,"A":6}}`,
	`{"unknown":{"a":[1,2,{"b":"\"}]"}],"c":null,"d":true,"e":1.5},"int":1}`,
	`{"innerInt":5,"InnerText":"x"}`, `null`, `{"list":null,"pointer":null,"int":null,"text":null}`,
	`{"int":128}`, `{"uint":-1}`, `{"int":1.5}`, `{"text":5}`, `{"Bool":"true"}`, `{"list":{}}`, `{"Struct":[]}`, `{"time":"x"}`,
	``, `{`, `{"a"`, `{"a":`, `{"a":}`, `{"a":1,}`, `{"a":1}}`, `[`, `{"list":["a"`, `{"list":["a",]}`, `{"text":"a`,
	`{"text":"\x"}`, `{"text":"\u12"}`, "{\"text\":\"\n\"}", "{\"text\":\"\xff\"}", `{"Bool":tru}`, `{"int":-}`, `{"int":}`, `{a:1}`,
	strings.Repeat(`{"a":`, 90) + "1" + strings.Repeat("}", 90),
}

func compare(t *testing.T, doc []byte) {
	var want, got every
	wantErr, err := json.Unmarshal(doc, &want), Unmarshal(doc, &got)
	if (wantErr == nil) != (err == nil) {
		t.Errorf("%s: got %v, want %v", doc, err, wantErr)
		return
	}
	if err != nil {
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got\n%+v, want\n%+v", doc, got, want)
	}
	ours, err := Marshal(&got)
	if err != nil {
		t.Errorf("%s: %v", doc, err)
	}
	theirs, _ := json.Marshal(&want)
	var a, b any
	if err := json.Unmarshal(ours, &a); err != nil {
		t.Errorf("%s: wrote %s: %v", doc, ours, err)
	}
	json.Unmarshal(theirs, &b)
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s: wrote\n%s, want\n%s", doc, ours, theirs)
	}
}

func TestLikeEncodingJSON(t *testing.T) {
	for _, doc := range documents {
		compare(t, []byte(doc))
	}
}

func FuzzLikeEncodingJSON(f *testing.F) {
	for _, doc := range documents {
		f.Add([]byte(doc))
	}
	names := map[string]bool{}
	for i := range reflect.TypeFor[every]().NumField() {
		sf := reflect.TypeFor[every]().Field(i)
		m, _, _ := memberOf(&sf)
		names[m.name] = true
		names["innerInt"], names["InnerText"] = true, true
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		// The documented differences: the case of names, depth, and numbers that JSON does not allow but that do no harm.
		lower := strings.ToLower(string(doc))
		for n := range names {
			if strings.Count(lower, strings.ToLower(n)) != strings.Count(string(doc), n) {
				t.Skip()
			}
		}
		if strings.Count(lower, "[")+strings.Count(lower, "{") > maxDepth/2 || !json.Valid(doc) {
			var v every
			Unmarshal(doc, &v) // must not panic
			return
		}
		compare(t, doc)
	})
}

// TestSpec: every type that an OCI configuration can contain is one that this package can handle.
func TestSpec(t *testing.T) {
	want := specs.Spec{}
	fill(reflect.ValueOf(&want).Elem(), 0)
	data, err := Marshal(&want)
	if err != nil {
		t.Fatal(err)
	}
	var got, std specs.Spec
	if err := Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &std); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(std, want) {
		t.Errorf("it came back different")
	}
}

// fill sets everything below v to something that is not zero.
func fill(v reflect.Value, n int) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(-n - 1))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		v.SetUint(uint64(n%100 + 1))
	case reflect.String:
		v.SetString("text \"\\\x01é" + strings.Repeat("x", n%5))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n+1)
		fill(v.Index(1), n+2)
	case reflect.Map:
		x := reflect.New(v.Type().Elem()).Elem()
		fill(x, n+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), x)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") != "-" {
				fill(v.Field(i), n+i)
			}
		}
	case reflect.Interface: // Windows.CredentialSpec; the documented exception
	default:
		panic(v.Type().String())
	}
}

func TestCannot(t *testing.T) {
	for _, v := range []any{make(chan int), &struct{ X any }{1}, struct{ *Inner }{}, map[int]int{1: 1}, func() {}} {
		if data, err := Marshal(v); err == nil {
			t.Errorf("%T was written: %s", v, data)
		}
	}
	if err := Unmarshal([]byte(strings.Repeat("[", 1e6)), new([]string)); err == nil {
		t.Error("a million levels")
	}
}
