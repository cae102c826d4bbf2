package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// harmless are the calls a package-level value may make: they allocate nothing worth counting, or wait for use.
var harmless = map[string]bool{
	"errors.New": true, "new": true, "make": true, "len": true, "byte": true, "string": true,
	"sync.OnceValue": true, "sync.OnceValues": true, "sync.OnceFunc": true,
	"unsafe.Sizeof": true, "unsafe.Offsetof": true,
}

// TestSource checks each file: nothing runs before main, one doc comment a package, sizes worth a look.
func TestSource(t *testing.T) {
	for _, p := range list(t, "./...") {
		if len(p.GoFiles) == 0 {
			continue // tests only
		}
		var documented []string
		types := declaredTypes(t, p)
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			where := p.ImportPath + "/" + name
			if f.Doc != nil {
				documented = append(documented, name)
			}
			if lines := fset.File(f.Pos()).LineCount(); lines > 800 {
				t.Logf("%s has %d lines: is it one idea?", where, lines)
			}
			if first, _ := part(p.ImportPath); first == "test" || first == "bench" || strings.HasPrefix(p.ImportPath, "hull/cmd/box") {
				continue // not linked into the product
			}
			if ast.IsGenerated(f) {
				continue
			}
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						t.Errorf("%s: func init: wire in main", where)
					}
				case *ast.GenDecl:
					for _, call := range calls(d, types) {
						t.Errorf("%s:%d: the package-level value calls %s before main", where, fset.Position(d.Pos()).Line, call)
					}
				}
			}
		}
		want := p.Name
		if p.Name == "main" {
			want = filepath.Base(p.Dir)
		}
		switch {
		case len(documented) == 0:
			t.Errorf("%s has no doc comment", p.ImportPath)
		case len(documented) > 1:
			t.Errorf("%s has a doc comment in each of %v", p.ImportPath, documented)
		case documented[0] != want+".go" && documented[0] != "main.go":
			t.Errorf("%s: the doc comment is in %s, want it in %s.go", p.ImportPath, documented[0], want)
		}
	}
}

// declaredTypes are the names of a package's types: calling one is a conversion.
func declaredTypes(t *testing.T, p pkg) map[string]bool {
	types := make(map[string]bool)
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.TYPE {
				for _, s := range d.Specs {
					types[s.(*ast.TypeSpec).Name.Name] = true
				}
			}
		}
	}
	return types
}

// calls names the functions that d's values call when the package is initialised.
func calls(d *ast.GenDecl, types map[string]bool) []string {
	if d.Tok != token.VAR {
		return nil
	}
	var out []string
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false // runs when called
		case *ast.CallExpr:
			name := expr(n.Fun)
			if _, conversion := n.Fun.(*ast.ArrayType); !conversion && !harmless[name] && !types[name] {
				out = append(out, name)
			}
		}
		return true
	})
	return out
}

// expr prints a name or a selector.
func expr(e ast.Expr) string {
	var b bytes.Buffer
	switch e := e.(type) {
	case *ast.Ident:
		b.WriteString(e.Name)
	case *ast.SelectorExpr:
		b.WriteString(expr(e.X) + "." + e.Sel.Name)
	default:
		b.WriteString("an expression")
	}
	return b.String()
}
