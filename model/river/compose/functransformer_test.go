package compose

import (
	"math"
	"testing"
	"time"
)

// TestClockFunctions: the parts of a moment are those of the standard library,
// on each day of five centuries, before 1970 and after.
func TestClockFunctions(t *testing.T) {
	byName := map[string]*function{}
	for i := range functions {
		byName[functions[i].name] = &functions[i]
	}
	at := time.Date(1700, 1, 1, 0, 0, 59, 0, time.UTC)
	for end := at.AddDate(500, 0, 0); at.Before(end); at = at.Add(23*time.Hour + 59*time.Minute + 7*time.Second) {
		for name, want := range map[string]int{
			"minute": at.Minute(), "hour": at.Hour(), "day": at.Day(), "month": int(at.Month()),
			"weekday": (int(at.Weekday()) + 6) % 7, // of Python, where Monday is 0
		} {
			if got := byName[name].call(float64(at.Unix())+0.5, 0, nil); got != float64(want) {
				t.Fatalf("%s of %v: got %v, want %d", name, at, got, want)
			}
		}
	}
}

// TestFunctionsStayFinite: within the bounds that they declare.
func TestFunctionsStayFinite(t *testing.T) {
	edges := []float64{-1e100, -1, -5e-324, 0, 5e-324, 1, 1e100}
	for i := range functions {
		f := &functions[i]
		numbers := []float64{-2, 3}[:f.numbers]
		for _, x := range edges {
			for _, y := range edges {
				got := f.call(x, y, numbers)
				least, most := f.bounds([2]float64{x, x}, [2]float64{y, y}, numbers)
				if math.IsNaN(got) || f.name != "ratio" && f.of == 0 && (got < least || got > most) {
					t.Errorf("%s(%g, %g): got %g, want %g to %g", f.name, x, y, got, least, most)
				}
			}
		}
	}
}
