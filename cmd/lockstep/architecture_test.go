package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A ban keeps one folder's packages from importing others. Tests are free.
type ban struct {
	of      string   // the package, or the folder of packages; "" is all of them
	except  []string // packages it does not hold for, with all below them
	imports []string // each bans that path and all below it
	allow   []string // but not these paths and what is below them
	deep    bool     // also what is imported only through other packages
	reason  string
}

var bans = []ban{
	{of: "lockstep/model", imports: []string{"lockstep"}, allow: []string{"lockstep/model"}, deep: true,
		reason: "the model is a pure function of its spec and its log; anyone can use it without the rest"},
	{of: "lockstep/model/river", imports: []string{"lockstep"}, allow: []string{"lockstep/model/river"}, deep: true,
		reason: "a component knows nothing of the fold that drives it"},
	{of: "lockstep/model", imports: []string{"net", "os", "syscall"},
		reason: "a replica's state may depend on nothing outside its log: no network, files or environment"},
	{of: "lockstep/model", imports: []string{"time"},
		reason: "replicas read the same log at different times: a clock would drive them apart"},
	{of: "lockstep/model", imports: []string{"math/rand", "crypto/rand", "hash/maphash"},
		reason: "replicas would each draw other numbers"},
	{of: "lockstep/bus", imports: []string{"lockstep/model", "lockstep/worker", "lockstep/cmd"}, deep: true,
		reason: "the bus carries bytes; what they mean is the worker's and the model's business"},
	{of: "", except: []string{"lockstep/bus/broker"}, imports: []string{"github.com/nats-io/nats-server"},
		reason: "only bus/broker embeds a server, so that one package knows its options and its lock"},
	// Only directly: jsm.go/natscontext, which bus needs, brings nats-server's code along.
	{of: "lockstep/worker", imports: []string{"github.com/nats-io/nats-server"},
		reason: "a worker is a client of any server, and knows none's insides"},
	{of: "lockstep/worker", imports: []string{"lockstep/bus/broker"}, deep: true,
		reason: "a worker is a client of any server, and starts none"},
	{of: "lockstep/worker/fleet", imports: []string{"lockstep/worker"},
		reason: "fleet is what replicas and tools have in common: types, records and pure functions, under everything " +
			"else of the worker"},
	{
		of: "lockstep/worker/replica", imports: []string{"lockstep/worker"},
		allow:  []string{"lockstep/worker/replica", "lockstep/worker/fleet"},
		reason: "the fold and its life know nothing of who asks the replica, or how",
	},
	{
		of: "lockstep/worker/serve", imports: []string{"lockstep/worker"},
		allow:  []string{"lockstep/worker/serve", "lockstep/worker/fleet"},
		reason: "requests are answered from any replica that has a model: tests give them one without a log",
	},
	{
		of: "lockstep/worker", except: []string{"lockstep/worker/web"},
		imports: []string{"lockstep/worker/web", "net/http"},
		reason:  "a worker answers over NATS; the door for people is beside it, and can be left out",
	},
	{of: "", except: []string{"lockstep/cmd/lockstep"}, imports: []string{"lockstep/cmd"}, deep: true,
		reason: "a command is where everything meets; nothing can stand on it"},
}

// listed is what go list says of a package.
type listed struct {
	ImportPath    string
	Imports, Deps []string
}

// within reports whether path is the package root or below it.
func within(path, root string) bool {
	return root == "" || path == root || strings.HasPrefix(path, root+"/")
}

// offences is what the packages import against the bans.
func offences(packages []listed) []string {
	var found []string
	for _, p := range packages {
		for _, b := range bans {
			if !within(p.ImportPath, b.of) ||
				slices.ContainsFunc(b.except, func(root string) bool { return within(p.ImportPath, root) }) {
				continue
			}
			imports := p.Imports
			if b.deep {
				imports = slices.Concat(p.Imports, p.Deps)
				slices.Sort(imports)
				imports = slices.Compact(imports)
			}
			for _, path := range imports {
				in := func(root string) bool { return within(path, root) }
				if slices.ContainsFunc(b.imports, in) && !slices.ContainsFunc(b.allow, in) {
					found = append(found, fmt.Sprintf("%s imports %s: %s", p.ImportPath, path, b.reason))
				}
			}
		}
	}
	return found
}

func TestImports(t *testing.T) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "lockstep/...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal("go list: ", err)
	}
	var packages []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	// A ban of a package that is not there would hold for nothing.
	for _, b := range bans {
		for _, path := range append([]string{b.of}, b.except...) {
			if path != "" && !slices.ContainsFunc(packages, func(p listed) bool { return p.ImportPath == path }) {
				t.Errorf("a ban names %s, and there is no such package", path)
			}
		}
	}
	for _, offence := range offences(packages) {
		t.Error(offence)
	}
}

// TestImportBansBite checks the bans themselves.
func TestImportBansBite(t *testing.T) {
	for _, c := range []struct {
		from, imports string
		deep, banned  bool
	}{
		{"lockstep/model", "lockstep/bus", false, true},
		{"lockstep/model", "lockstep/model/river", true, false},
		{"lockstep/model/river/compose", "lockstep/model/river", true, false},
		{"lockstep/model/river/compose", "lockstep/model", true, true},
		{"lockstep/model", "os/exec", false, true},
		{"lockstep/model", "net/http", false, true},
		{"lockstep/model", "time", false, true},
		{"lockstep/model", "math/rand/v2", false, true},
		{"lockstep/model", "math", false, false},
		{"lockstep/model", "embed", false, false},
		{"lockstep/model", "os", true, false}, // fmt imports it
		{"lockstep/bus", "lockstep/model", false, true},
		{"lockstep/bus/broker", "lockstep/worker", true, true},
		{"lockstep/bus", "github.com/nats-io/nats-server/v2/server", false, true},
		{"lockstep/bus/broker", "github.com/nats-io/nats-server/v2/server", false, false},
		{"lockstep/cmd/lockstep", "github.com/nats-io/nats-server/v2/server", false, true},
		{"lockstep/cmd/lockstep", "github.com/nats-io/nats-server/v2/server", true, false},
		{"lockstep/cmd/lockstep", "lockstep/bus/broker", false, false},
		{"lockstep/worker", "lockstep/bus/broker", true, true},
		{"lockstep/worker", "lockstep/bus", false, false},
		{"lockstep/worker", "lockstep/worker/web", false, true},
		{"lockstep/worker", "lockstep/worker/serve", false, false},
		{"lockstep/worker/replica", "lockstep/worker/serve", false, true},
		{"lockstep/worker/replica", "lockstep/worker/fleet", false, false},
		{"lockstep/worker/serve", "lockstep/worker/replica", false, true},
		{"lockstep/worker/serve", "lockstep/worker", false, true},
		{"lockstep/worker", "net/http", false, true},
		{"lockstep/worker/web", "net/http", false, false},
		{"lockstep/worker/web", "lockstep/worker", false, false},
		{"lockstep/worker", "lockstep/cmd/lockstep", false, true},
		{"lockstep/worker", "lockstep/cmd/lockstep/internal/printable", true, true},
		{"lockstep/cmd/lockstep", "lockstep/cmd/lockstep/internal/printable", true, false},
	} {
		p := listed{ImportPath: c.from, Deps: []string{c.imports}}
		if !c.deep {
			p.Imports = p.Deps
		}
		if banned := len(offences([]listed{p})) > 0; banned != c.banned {
			t.Errorf(
				"%s imports %s (only through others: %v): banned %v, want %v", c.from, c.imports, c.deep, banned,
				c.banned,
			)
		}
	}
}

// TestFolders keeps the top level as README and newcomers know it.
func TestFolders(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "lockstep").Output()
	if err != nil {
		t.Fatal("go list: ", err)
	}
	root := strings.TrimSpace(string(out))
	want := []string{"bus", "cmd", "deploy", "model", "worker"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// dist holds what a release builds, and git ignores it.
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "dist" && !slices.Contains(want, e.Name()) {
			t.Errorf("a new folder %s: it belongs in one of %v", e.Name(), want)
		}
	}
	for _, name := range want {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil &&
			name != "deploy" { // deploy is not in git while empty
			t.Error(err)
		}
	}
}
