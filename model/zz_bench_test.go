package model

import (
	"bytes"
	"os"
	"testing"
	"strconv"
)

func BenchmarkApplySingle(b *testing.B) {
	data, _ := os.ReadFile("testdata/penguins-shuffled.jsonl")
	var rows [][]byte
	for _, l := range bytes.Split(data, []byte("\n")) {
		if bytes.Contains(l, []byte(`"attributes"`)) && bytes.Contains(l, []byte(`"species"`)) {
			rows = append(rows, l)
		}
	}
	if len(rows) == 0 { b.Fatal(string(data[:300])) }
	ids := make([]string, 300000)
	for i := range ids { ids[i] = "ABCDEFGHIJKLMNOPQRSTUV" + strconv.Itoa(i) }
	for _, named := range []bool{true, false} {
		b.Run("id="+strconv.FormatBool(named), func(b *testing.B) {
			m, _ := New(DefaultSpec())
			b.ReportAllocs()
			seq := 0
			for b.Loop() {
				seq++
				msg := Message{Seq: uint64(seq), Subject: "learn", Data: rows[seq%len(rows)], Time: int64(seq)}
				if named { msg.ID = ids[seq%len(ids)] }
				m.Apply(msg)
			}
			if m.learned < uint64(seq)/2 { b.Fatal(m.learned, seq) }
		})
	}
}
