package model_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"lockstep/model"
	"lockstep/model/river"
)

var updateReference = flag.Bool("update-reference", false, "write the components' table in README.md")

// kinds are the reference's tables, in their order.
var kinds = []struct {
	heading string
	tasks   []river.Task
}{
	{"Steps", []river.Task{river.Transformation}},
	{"Last steps, for a category", []river.Task{river.Classification}},
	{"Last steps, for a boolean (those for a category do, too)", []river.Task{river.BinaryClassification}},
	{"Last steps, for a number", []river.Task{river.Regression}},
	{
		"Parameters of other classes",
		[]river.Task{river.Optimization, river.Scheduling, river.BinaryLoss, river.RegressionLoss, river.Statistical},
	},
}

// reference is the registry as Markdown.
func reference() string {
	var out strings.Builder
	for _, kind := range kinds {
		fmt.Fprintf(&out, "\n### %s\n\n| class | does | parameters |\n|---|---|---|\n", kind.heading)
		for _, task := range kind.tasks {
			for _, class := range model.Classes() {
				if class.Task == task {
					fmt.Fprintf(&out, "| `%s` | %s | %s |\n", class.Name, class.Summary, parameters(class))
				}
			}
		}
	}
	return out.String()
}

func parameters(class *river.Class) string {
	var out []string
	for i := range class.Params {
		p := &class.Params[i]
		text := fmt.Sprintf("`%s`: %s (%s", p.Name, p.Summary, p.Range())
		switch value := p.Default.(type) {
		case nil:
		case float64:
			text += "; " + river.Shortest(value)
		case river.Step:
			text += "; " + value.Class.Name
		default:
			text += fmt.Sprint("; ", value)
		}
		out = append(out, text+")")
	}
	return strings.ReplaceAll(strings.Join(out, "<br>"), "|", "\\|")
}

// TestReference holds README.md's tables to the registry.
func TestReference(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = " -->\n", "<!-- end of components -->"
	page := string(data)
	from := strings.Index(page, "<!-- components:")
	from += strings.Index(page[from:], begin) + len(begin)
	to := strings.Index(page, end)
	want := page[:from] + reference() + "\n" + page[to:]
	if *updateReference {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if page != want {
		t.Error("the table of components is not the registry's: go test ./model -run TestReference -update-reference")
	}
}
