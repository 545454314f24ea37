package model

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Rules of the model's source that keep its bits the same on every CPU and its
// bytes the same in every run. The compiler does not know them; this does.

// portable is what the model may use of package math, besides its constants:
// only what IEEE 754 fixes to the last bit, or what moves bits about.
var portable = map[string]bool{
	"Sqrt":  true,                // correctly rounded on every CPU
	"Floor": true, "Trunc": true, // exact
	"Abs": true, "Float64bits": true, "Float64frombits": true,
	"Inf": true, "IsInf": true, "IsNaN": true, "NaN": true,
}

// unordered is what hands out a map's keys in an order of its own, as range does.
var unordered = map[string]bool{
	"maps.Keys": true, "maps.Values": true, "maps.All": true,
	"(reflect.Value).MapKeys": true, "(reflect.Value).MapRange": true,
	"(reflect.Value).Seq": true, "(reflect.Value).Seq2": true,
}

// broken is what the files of a package break of the rules.
func broken(fset *token.FileSet, path string, files []*ast.File, imports types.Importer) ([]string, error) {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: imports}
	if _, err := config.Check(path, fset, files, info); err != nil {
		return nil, err
	}
	var found []string
	report := func(at token.Pos, format string, args ...any) {
		p := fset.Position(at)
		found = append(found, fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, fmt.Sprintf(format, args...)))
	}
	for _, file := range files {
		ordered := map[int]bool{} // lines a comment that starts with order: speaks of
		for _, group := range file.Comments {
			for _, c := range group.List {
				if why, ok := strings.CutPrefix(c.Text, "// order:"); ok && strings.TrimSpace(why) != "" {
					ordered[fset.Position(c.Pos()).Line] = true
					ordered[fset.Position(group.End()).Line+1] = true
				}
			}
		}
		hasOrder := func(at token.Pos) bool { return ordered[fset.Position(at).Line] }
		product := func(e ast.Expr) bool { return isProduct(info, e) }

		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				o := info.Uses[n]
				if o == nil || o.Pkg() == nil {
					break
				}
				_, constant := o.(*types.Const)
				switch path := o.Pkg().Path(); {
				case path == "math" && !constant && !portable[o.Name()]:
					report(n.Pos(), "math.%s: its bits may differ between CPUs, see math.go", o.Name())
				case strings.HasPrefix(path, "math/") && path != "math/bits":
					report(n.Pos(), "%s.%s: the model needs neither chance nor other arithmetic", path, o.Name())
				}
				if f, ok := o.(*types.Func); ok && unordered[f.FullName()] && !hasOrder(n.Pos()) {
					report(n.Pos(), "%s has no order: say in a comment // order: why none is needed", f.FullName())
				}
			case *ast.RangeStmt:
				if isMap(info.TypeOf(n.X)) && !hasOrder(n.Pos()) {
					report(n.Pos(), "range over a map has no order: say in a comment // order: why none is needed")
				}
			case *ast.BinaryExpr:
				if (n.Op == token.ADD || n.Op == token.SUB) && (product(n.X) || product(n.Y)) {
					report(n.OpPos, "a product in a sum may be fused with it: write float64(a*b)")
				}
			case *ast.AssignStmt:
				if (n.Tok == token.ADD_ASSIGN || n.Tok == token.SUB_ASSIGN) && product(n.Rhs[0]) {
					report(n.TokPos, "a product in a sum may be fused with it: write float64(a*b)")
				}
			}
			return true
		})
	}
	slices.Sort(found)
	return found, nil
}

// isProduct reports whether e is a floating-point product, or one negated, that
// nothing rounds and the compiler has not computed.
func isProduct(info *types.Info, e ast.Expr) bool {
	if info.Types[e].Value != nil {
		return false
	}
	switch e := e.(type) {
	case *ast.ParenExpr:
		return isProduct(info, e.X)
	case *ast.UnaryExpr:
		return (e.Op == token.SUB || e.Op == token.ADD) && isProduct(info, e.X)
	case *ast.BinaryExpr:
		return e.Op == token.MUL && isFloat(info.TypeOf(e))
	}
	return false
}

// isFloat also holds of a type parameter that may be a float.
func isFloat(t types.Type) bool {
	return some(t, func(u types.Type) bool {
		b, ok := u.(*types.Basic)
		return ok && b.Info()&(types.IsFloat|types.IsComplex) != 0
	})
}

// isMap also holds of a type parameter that may be a map.
func isMap(t types.Type) bool {
	return some(t, func(u types.Type) bool { _, ok := u.(*types.Map); return ok })
}

// some reports whether is holds of t's underlying type, or, if t is a type
// parameter, of some type it stands for.
func some(t types.Type, is func(types.Type) bool) bool {
	if t == nil {
		return false
	}
	if i, ok := t.Underlying().(*types.Interface); ok {
		for e := range i.EmbeddedTypes() {
			if some(e, is) {
				return true
			}
		}
		return false
	}
	if u, ok := t.(*types.Union); ok {
		for term := range u.Terms() {
			if some(term.Type(), is) {
				return true
			}
		}
		return false
	}
	return is(t.Underlying())
}

// compiled imports packages from what the go command has compiled of them.
func compiled(t *testing.T, fset *token.FileSet, packages ...string) types.Importer {
	t.Helper()
	list := exec.Command(
		"go",
		append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, packages...)...)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal("go list: ", err)
	}
	exports := map[string]string{}
	for line := range bytes.Lines(out) {
		path, file, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		exports[path] = file
	}
	return importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
}

// TestSourceIsPortable reads the packages from this one down, among them that
// of each class of the registry.
func TestSourceIsPortable(t *testing.T) {
	list := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .GoFiles}} {{$.Dir}}/{{.}}{{end}}`, "./...")
	out, err := list.Output()
	if err != nil {
		t.Fatal("go list: ", err)
	}
	fset := token.NewFileSet()
	imports := compiled(t, fset, "./...")
	read := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		names := strings.Fields(line)
		read[names[0]] = true
		var files []*ast.File
		for _, name := range names[1:] {
			file, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		found, err := broken(fset, names[0], files, imports)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range found {
			t.Error(b)
		}
	}
	for _, class := range Classes() {
		build := buildFunction(class)
		folder := strings.LastIndexByte(build, '/')
		if pkg, _, _ := strings.Cut(build[folder:], "."); !read[build[:folder]+pkg] {
			t.Errorf("%s is in %s, which was not read", class.Name, pkg)
		}
	}
}

// TestSourceRulesBite checks the rules themselves: each line that ends in BAD
// breaks one, and no other does.
func TestSourceRulesBite(t *testing.T) {
	const source = `package model

import "maps"
import m "math"
import "math/rand/v2"

func numbers(a, b, c float64, n int) float64 {
	c = m.Exp(a)                // BAD
	c += float64(rand.Int())    // BAD
	c = m.Sqrt(m.Floor(m.Pi)) + m.MaxFloat64
	c = a*b + c                 // BAD
	c = c - (a * b)             // BAD
	c = -(a * b) + c            // BAD
	c += a * b                  // BAD
	c -= 2 * a                  // BAD
	c = float64(a*b) + c
	c += float64(a * b)
	c = a*b/2 + c
	c += 2 * m.Pi
	n += n*n + 1
	return c
}

func either[F ~float64 | ~int](a, b, c F) F {
	return a*b + c              // BAD
}

type set map[string]bool

func maps_(s set, f func()) {
	for range s {               // BAD
		f()
	}
	for range s { // order: only counted
		f()
	}
	// order: only counted,
	// as said
	for range s {
		f()
	}
	// order:
	for range s {               // BAD
		f()
	}
	for range maps.Keys(s) {    // BAD
		f()
	}
	for range maps.Keys(s) { // order: only counted
		f()
	}
	for range []int{1} {
		f()
	}
}
`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "x.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	found, err := broken(fset, "lockstep/model", []*ast.File{file}, compiled(t, fset, "maps", "math", "math/rand/v2"))
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(source, "\n") {
		at := fmt.Sprintf("x.go:%d: ", i+1)
		bad := slices.ContainsFunc(found, func(b string) bool { return strings.HasPrefix(b, at) })
		if bad != strings.HasSuffix(line, "// BAD") {
			t.Errorf("%sfound broken: %v: %s", at, bad, line)
		}
	}
	t.Log(strings.Join(found, "\n"))
}
