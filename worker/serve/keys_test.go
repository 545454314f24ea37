package serve

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lockstep/model"
)

// apart are the types, and the functions with a type of their own, whose keys
// never stand beside a spec's names in one object. All others are replies.
var apart = []string{
	// The verdicts' messages.
	"report",
	// Of a replica, with nothing of its spec.
	"func status",
	// Elements of a list within a reply.
	"Contribution", "detail",
	// An error in the place of a reply: it has a detail, which no reply has.
	"func lines", "func body",
	// The live page's own.
	"state", "fleetState", "replicaState", "classState", "said", "trafficState", "func greet",
}

// TestReplyKeysAreReserved: each key of a reply is in the model's list, so no
// spec has an input or a label of that name.
func TestReplyKeysAreReserved(t *testing.T) {
	replies := jsonKeys(t, "..")
	for _, name := range apart {
		delete(replies, name)
	}
	if _, ok := replies["Explanation"]; !ok {
		t.Errorf("got the types %v, want Explanation among them", slices.Sorted(maps.Keys(replies)))
	}
	r := newRig(t, model.DefaultSpec())
	for seq := range uint64(3) { // what is put together by hand is read back
		for _, verb := range []string{"predict", "explain"} {
			for key := range r.ask(verb, row).reply() {
				if key != "species" {
					replies["a reply"] = append(replies["a reply"], key)
				}
			}
		}
		r.fold(seq + 1)
	}
	for name, keys := range replies {
		for _, key := range keys {
			if !slices.Contains(model.ReplyKeys(), key) {
				t.Errorf("%s has the key %q: reserve it in the model's list, or say here that it stands apart", name, key)
			}
		}
	}
}

// jsonKeys are the keys of all structs in a folder's packages, by their type,
// or by the function that they are declared in.
func jsonKeys(t *testing.T, root string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	add := func(name string, n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			field, ok := n.(*ast.Field)
			if !ok || field.Tag == nil {
				return true
			}
			tag, err := strconv.Unquote(field.Tag.Value)
			if err != nil {
				t.Error(err)
			}
			if key, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ","); key != "" && key != "-" {
				out[name] = append(out[name], key)
			}
			return true
		})
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "fleet" {
			return filepath.SkipDir // what replicas tell each other, not who asks them
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				add("func "+decl.Name.Name, decl)
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					if typ, ok := spec.(*ast.TypeSpec); ok {
						add(typ.Name.Name, typ)
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
