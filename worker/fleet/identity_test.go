package fleet

import (
	"reflect"
	"testing"
)

// TestDiffers is the table of the one comparison.
func TestDiffers(t *testing.T) {
	t.Parallel()
	own := Identity{Incarnation: "i", Contract: "c", Encoding: "e"}
	for _, c := range []struct {
		other Identity
		want  Difference
		text  string
	}{
		{own, 0, ""},
		{Identity{"j", "c", "e"}, OtherIncarnation, "log"},
		{Identity{"i", "d", "e"}, OtherContract, "contract"},
		{Identity{"i", "c", "f"}, OtherEncoding, "encoding"},
		{Identity{"j", "d", "f"}, OtherIncarnation | OtherContract | OtherEncoding, "log, contract, encoding"},
		{Identity{"", "c", "e"}, 0, ""}, // has read no genesis yet
		{Identity{"", "d", "e"}, OtherContract, "contract"},
		{Identity{Contract: "c"}, 0, ""},
		{Identity{}, 0, ""},
	} {
		got := own.Differs(c.other)
		if got != c.want || c.other.Differs(own) != got {
			t.Errorf("%+v: got %q and %q, want %q", c.other, got, c.other.Differs(own), c.want)
		}
		if got.String() != c.text {
			t.Errorf("%+v: got the text %q, want %q", c.other, got, c.text)
		}
	}
}

// TestDiffersLooksAtEveryField: a field that is added must be compared.
func TestDiffersLooksAtEveryField(t *testing.T) {
	t.Parallel()
	for i := range reflect.TypeFor[Identity]().NumField() {
		a, b := Identity{"x", "x", "x"}, Identity{"x", "x", "x"}
		reflect.ValueOf(&b).Elem().Field(i).SetString("y")
		if a.Differs(b) == 0 {
			t.Errorf("%s: got no difference, want one", reflect.TypeFor[Identity]().Field(i).Name)
		}
	}
}
