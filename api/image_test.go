package api

import (
	"encoding/json"
	"net/http"
	"testing"
)

// TestVirtualSize: clients of before API 1.44 count with VirtualSize, later ones do not know it.
func TestVirtualSize(t *testing.T) {
	c := client(t)
	if res, body := do(t, c, "POST", "/images/create?fromSrc=-&repo=old&tag=1", rootfsTar(t).String()); res.StatusCode != http.StatusOK {
		t.Fatalf("import: %s %s", res.Status, body)
	}
	get := func(version, path string) string {
		t.Helper()
		res, body := do(t, c, "GET", version+path, "")
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%s%s: %s %s", version, path, res.Status, body)
		}
		return body
	}
	type sizes struct{ Size, VirtualSize int64 }
	read := func(version string) []sizes {
		t.Helper()
		var one sizes
		var list []sizes
		var df struct{ Images []sizes }
		for path, to := range map[string]any{"/images/old:1/json": &one, "/images/json": &list, "/system/df": &df} {
			if err := json.Unmarshal([]byte(get(version, path)), to); err != nil {
				t.Fatal(err)
			}
		}
		if len(list) != 1 || len(df.Images) != 1 {
			t.Fatalf("%s: want an image in each list, got %v and %v", version, list, df.Images)
		}
		return []sizes{one, list[0], df.Images[0]}
	}
	for _, s := range read("/v1.41") {
		if s.Size == 0 || s.VirtualSize != s.Size {
			t.Errorf("1.41: want both sizes the same, got %+v", s)
		}
	}
	for _, s := range read("/v1.44") {
		if s.Size == 0 || s.VirtualSize != 0 {
			t.Errorf("1.44: want no virtual size, got %+v", s)
		}
	}
}
