package model

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"lockstep/model/river"
)

// A fused multiply-add rounds once where a product and a sum round twice, so a
// replica on a CPU that has one would leave the others. Go's compiler fuses
// wherever the target can, unless the product is converted: float64(a*b) + c.
// This gate reads what the compiler makes of the model for every such target.

// fusing are the targets on which the compiler fuses. loong64 does too, with
// riscv64's mnemonics; other targets never do.
var fusing = [][]string{
	{"GOARCH=arm64"},
	{"GOARCH=amd64", "GOAMD64=v3"},
	{"GOARCH=ppc64le"},
	{"GOARCH=s390x"},
	{"GOARCH=riscv64"},
}

// instruction is a line of the compiler's listing: place, then mnemonic.
var instruction = regexp.MustCompile(`(?m)^\t0x[0-9a-f]+ \d+ \(([^)]*)\)\t([A-Z][A-Z0-9.]*)`)

// fusedMnemonic matches FMADDD and FNMSUBS (arm64, riscv64), FMADD (ppc64, s390x),
// VFMADD231SD (amd64), WFMADB (s390x) and XSMADDADP (ppc64), but neither MADD,
// an integer's, nor WFMAXDB, a maximum.
var fusedMnemonic = regexp.MustCompile(`^(V?FN?M(ADD|SUB)|[VW]FN?M[AS][DSX]B$|X[SV]N?M(ADD|SUB))`)

// fusedIn is the places in a listing where an instruction is fused.
func fusedIn(listing string) []string {
	var places []string
	for _, m := range instruction.FindAllStringSubmatch(listing, -1) {
		if fusedMnemonic.MatchString(m[2]) {
			places = append(places, m[1]+": "+m[2])
		}
	}
	slices.Sort(places)
	return slices.Compact(places)
}

// assembly compiles the packages below dir for the target, and returns the
// listing of those that the pattern names.
func assembly(t *testing.T, dir, pattern string, target []string) string {
	t.Helper()
	build := exec.Command("go", "build", "-gcflags="+pattern+"=-S", "./...")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	build.Env = append(build.Env, target...)
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("go build for %v: %v\n%s", target, err, out[:min(len(out), 2000)])
	}
	return string(out)
}

func TestNothingIsFused(t *testing.T) {
	for i, target := range fusing {
		t.Run(strings.Join(target, ","), func(t *testing.T) {
			if testing.Short() && i > 0 {
				t.Skip("the first target stands for all under -short")
			}
			listing := assembly(t, ".", "lockstep/model/...", target)
			// A gate that reads nothing would pass: these must be in the listing.
			for _, name := range []string{"model.(*Metrics).update", "model/river.Exp", "model/river.Log", "model/river.Log1p"} {
				if !strings.Contains(listing, "\nlockstep/"+name+" STEXT") {
					t.Fatalf("the listing has no function %s: is it still one?", name)
				}
			}
			for _, class := range Classes() {
				if build := buildFunction(class); !strings.Contains(listing, "\n"+build+" STEXT") {
					t.Fatalf("the listing has no function %s, which builds %s", build, class.Name)
				}
			}
			if n := len(instruction.FindAllStringIndex(listing, -1)); n < 10_000 {
				t.Fatalf("only %d instructions found in the listing: has its form changed?", n)
			}
			for _, place := range fusedIn(listing) {
				t.Errorf("%s: write float64(a*b) ± c, or CPUs disagree in the last bit", place)
			}
		})
	}
}

// buildFunction is the name of the function that builds or makes a class.
func buildFunction(class *river.Class) string {
	of := reflect.ValueOf(class.Build)
	if class.Build == nil {
		of = reflect.ValueOf(class.Make)
	}
	return runtime.FuncForPC(of.Pointer()).Name()
}

// TestFusedIsFound checks the gate itself: on every target it finds what it is
// for, in each of the forms, and lets the remedy pass.
func TestFusedIsFound(t *testing.T) {
	const source = `package scratch

func add(a, b, c float64) float64 { return a*b + c }
func sub(a, b, c float64) float64 { return a*b - c }
func from(a, b, c float64) float64 { return c - a*b }
func later(a, b, c float64) float64 { p := a * b; return p + c }
func single(a, b, c float32) float32 { return a*b + c }

func rounded(a, b, c float64) float64 { return float64(a*b) + c }
func maximum(a, b float64) float64 { return max(a, b) }
func whole(a, b, c int) int { return a*b + c }
`
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module scratch\n\ngo 1.26\n", "scratch.go": source} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, target := range fusing {
		t.Run(strings.Join(target, ","), func(t *testing.T) {
			if testing.Short() && i > 0 {
				t.Skip("the first target stands for all under -short")
			}
			places := fusedIn(assembly(t, dir, "scratch", target))
			t.Log(places)
			fused := func(line string) bool {
				return slices.ContainsFunc(places, func(p string) bool { return strings.Contains(p, "scratch.go:"+line+": ") })
			}
			if !fused("3") {
				t.Error("a*b + c was not found")
			}
			// amd64 has no pattern for a difference; what the others fuse
			// of these is theirs to choose.
			if target[0] == "GOARCH=arm64" && !(fused("4") && fused("5") && fused("6") && fused("7")) {
				t.Error("not every form was found")
			}
			if fused("9") || fused("10") || fused("11") {
				t.Error("what is not fused was found")
			}
		})
	}
}
