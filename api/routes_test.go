package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// TestDocumented compares the route table with docs/api.md, both ways.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`((?:GET|HEAD|POST|PUT|DELETE) /[^` ]*)`").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	for _, r := range table {
		call := r.method + " " + r.pattern
		if !documented[call] && !strings.HasPrefix(r.pattern, "/hull/") {
			t.Errorf("%s is not in docs/api.md", call)
		}
		delete(documented, call)
	}
	for call := range documented {
		t.Errorf("docs/api.md has %s, and there is no such route", call)
	}
}

// TestReach: what takes credentials for registries along connects to where the client wants, from where the engine is. That
// is more than to tell what is known here.
func TestReach(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	connects := map[string]bool{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "remote" || s.Sel.Name == "logins" || s.Sel.Name == "Login") {
					connects[fn.Name.Name] = true
				}
				return true
			})
		}
	}
	seen := 0
	for _, r := range table {
		name := runtime.FuncForPC(reflect.ValueOf(r.handle).Pointer()).Name()
		if connects[name[strings.LastIndexByte(name, '.')+1:]] {
			seen++
			if r.access == read {
				t.Errorf("%s %s has the class of what only tells", r.method, r.pattern)
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d routes were found that connect: the test sees nothing", seen)
	}
}
