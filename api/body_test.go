package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// TestAnswerList: what is sent in pieces is the same JSON as what is sent whole.
func TestAnswerList(t *testing.T) {
	type line struct{ Name, Text string }
	for _, n := range []int{0, 1, 2, 1000} {
		list := []line{}
		for i := range n {
			list = append(list, line{fmt.Sprint(i), strings.Repeat("<", 100)})
		}
		w := httptest.NewRecorder()
		if err := answerList(&request{w: w, Request: httptest.NewRequest("GET", "/", nil)}, list); err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Body.String(); got != string(want)+"\n" {
			t.Errorf("%d lines: want %d bytes, got %d", n, len(want)+1, len(got))
		}
		if got := w.Result(); got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%d lines: got %s, %v", n, got.Status, got.Header)
		}
	}
	// What cannot be said ends the connection: half a list must not look like a whole one.
	defer func() {
		if p := recover(); !reflect.DeepEqual(p, http.ErrAbortHandler) {
			t.Errorf("want %v, got %v", http.ErrAbortHandler, p)
		}
	}()
	_ = answerList(&request{w: httptest.NewRecorder()}, []any{func() {}})
}
