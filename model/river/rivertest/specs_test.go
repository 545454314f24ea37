package rivertest

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lockstep/model"
	"lockstep/model/river"
)

var update = flag.Bool("update", false, "write pipelines.json, and the digests that are missing in digests.txt")

// specs are the suite's, by name: those in testdata, and the shipped ones.
func specs(t testing.TB) map[string]*model.Spec {
	t.Helper()
	out := map[string]*model.Spec{}
	for _, name := range model.ShippedSpecs() {
		out[name], _ = model.ShippedSpec(name)
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("got no specs: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := model.ParseSpec(data)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out[strings.TrimSuffix(filepath.Base(file), ".yaml")] = s
	}
	return out
}

// eachSpec runs a test on each spec, all at once.
func eachSpec(t *testing.T, test func(t *testing.T, name string, s *model.Spec)) {
	all := specs(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, name, all[name])
		})
	}
}

// walk calls see for each step, through branches and nested classes.
func walk(steps []river.Step, see func(s *river.Step)) {
	for i := range steps {
		see(&steps[i])
		for _, arg := range steps[i].Args {
			switch arg := arg.(type) {
			case river.Step:
				walk([]river.Step{arg}, see)
			case [][]river.Step:
				for _, branch := range arg {
					walk(branch, see)
				}
			}
		}
	}
}

// TestEveryClassIsTested: each class is in a spec with a trace, and each of its
// parameters there has its default in one spec and another value in another.
func TestEveryClassIsTested(t *testing.T) {
	traced := tracedSpecs(t)
	given := map[string]map[string]bool{} // by class and parameter: the values
	for name, s := range specs(t) {
		if !traced[name] {
			continue
		}
		walk(s.Pipeline, func(s *river.Step) {
			for i := range s.Class.Params {
				key := s.Class.Name + "." + s.Class.Params[i].Name
				if given[key] == nil {
					given[key] = map[string]bool{}
				}
				given[key][fmt.Sprint(s.Args[i])] = true
			}
			given[s.Class.Name] = map[string]bool{}
		})
	}
	for _, class := range model.Classes() {
		if given[class.Name] == nil {
			t.Errorf("%s is in no spec that River was asked about", class.Name)
		}
		for i := range class.Params {
			p := &class.Params[i]
			if values := given[class.Name+"."+p.Name]; p.Default != nil &&
				(len(values) < 2 || !values[fmt.Sprint(p.Default)]) {
				t.Errorf(
					"%s: River was asked about %s with the values %v, want the default and another", class.Name,
					p.Name, slices.Collect(maps.Keys(values)),
				)
			}
		}
		if class.Summary == "" || !strings.HasPrefix(class.Source, "river.") || class.Task == 0 {
			t.Errorf("%s is not declared in full: %+v", class.Name, class)
		}
	}
}

// python is a pipeline as River's user writes it. It is made of what the classes
// declare, like everything else that reads a spec.
func python(steps []river.Step) string {
	var out []string
	for i := range steps {
		out = append(out, pythonStep(&steps[i]))
	}
	return "compose.Pipeline(" + strings.Join(out, ", ") + ")"
}

func pythonStep(s *river.Step) string {
	var args []string
	for i, arg := range s.Args {
		name := s.Class.Params[i].Name
		switch arg := arg.(type) {
		case float64:
			args = append(args, name+"="+river.Shortest(arg))
		case bool:
			args = append(args, name+"="+map[bool]string{false: "False", true: "True"}[arg])
		case river.Step:
			args = append(args, name+"="+pythonStep(&arg))
		case string:
			args = append(args, name+"="+pythonText(arg))
		case []string:
			var columns []string
			for _, column := range arg {
				columns = append(columns, pythonText(column))
			}
			if s.Class.Params[i].Kind == river.ColumnList {
				columns = []string{name + "=[" + strings.Join(columns, ", ") + "]"}
			}
			args = append(args, columns...)
		case [][]river.Step:
			for _, branch := range arg {
				args = append(args, python(branch))
			}
		case []river.Function:
			var made []string
			for _, e := range arg {
				var in []string
				for _, column := range e.Columns {
					in = append(in, "x["+pythonText(column)+"]")
				}
				for _, number := range e.Numbers {
					in = append(in, river.Shortest(number))
				}
				made = append(made, pythonText(e.Output)+": functions."+e.Name+"("+strings.Join(in, ", ")+")")
			}
			args = append(args, "lambda x: {"+strings.Join(made, ", ")+"}")
		case []river.Renaming:
			var pairs []string
			for _, e := range arg {
				pairs = append(pairs, pythonText(e.Column)+": "+pythonText(e.Name))
			}
			args = append(args, "{"+strings.Join(pairs, ", ")+"}")
		case []river.Statistic:
			for _, e := range arg {
				value := "stats." + e.Name + "()"
				if e.Name == river.Constant {
					value = river.Shortest(e.Value)
				}
				args = append(args, fmt.Sprintf("(%s, %s)", pythonText(e.Column), value))
			}
		}
	}
	return strings.TrimPrefix(s.Class.Source, "river.") + "(" + strings.Join(args, ", ") + ")"
}

// pythonText is a text in JSON, which for what names have is Python as well.
func pythonText(text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// TestPipelinesInPython: pipelines.json, which generate.py reads, has all specs.
func TestPipelinesInPython(t *testing.T) {
	all := map[string]string{}
	for name, s := range specs(t) {
		all[name] = python(s.Pipeline)
	}
	want, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	const file = "testdata/pipelines.json"
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != string(want) {
		t.Errorf("%s is not that of the specs (%v): run this test with -update, and generate.py", file, err)
	}
}
