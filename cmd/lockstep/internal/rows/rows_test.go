package rows_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf16"

	"lockstep/cmd/lockstep/internal/rows"
	"lockstep/model"
)

// shop is a spec with a text and a number.
var shop = mustSpec(`
name: shop
input:
  city: {type: category, nullable: true, max_values: 200, max_bytes: 64}
  qty:  {type: number, nullable: true, min: -1e6, max: 1e6}
label: {name: outcome, type: category, max_values: 20}
pipeline:
  - union:
      - [{Select: [city]}, OneHotEncoder]
      - [{Select: [qty]}, {StatImputer: {qty: Mean}}]
  - GaussianNB
`)

func mustSpec(text string) *model.Spec {
	s, err := model.ParseSpec([]byte(text))
	if err != nil {
		panic(err)
	}
	return s
}

// read is a file's rows, one a line: the line, and the event or the problem;
// and what ended it, unless it was its end.
func read(in io.Reader, name string, o rows.Options) string {
	var out strings.Builder
	text, err := rows.NewText(in, o.Encoding)
	if err != nil {
		return "ERROR " + err.Error()
	}
	r, err := rows.NewReader(text, name, shop, o)
	if err != nil {
		return "ERROR " + err.Error()
	}
	for {
		row, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return out.String()
		case err != nil:
			return out.String() + "ERROR " + err.Error()
		case row.Problem != "":
			fmt.Fprintf(&out, "%d REFUSED %s\n", row.Line, row.Problem)
		default:
			data := strings.TrimSuffix(strings.TrimPrefix(string(row.Data), `{"attributes":{`), "}")
			fmt.Fprintf(&out, "%d %s\n", row.Line, data)
		}
	}
}

func zipped(parts ...string) string {
	var b bytes.Buffer
	for _, part := range parts { // each a member of its own
		z := gzip.NewWriter(&b)
		io.WriteString(z, part)
		z.Close()
	}
	return b.String()
}

func wide(text string, big bool, mark bool) string {
	if mark {
		text = "\ufeff" + text
	}
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		if big {
			b = append(b, byte(u>>8), byte(u))
		} else {
			b = append(b, byte(u), byte(u>>8))
		}
	}
	return string(b)
}

const bern = "2 \"city\":\"Bern\",\"qty\":1},\"outcome\":\"buy\"\n"

func TestRead(t *testing.T) {
	t.Parallel()
	const plain = "city,qty,outcome\nBern,1,buy\n"
	deep := strings.Repeat("[", 20000)
	for _, c := range []struct {
		what, name, in string
		o              rows.Options
		want           string
	}{
		{"plain", "a.csv", plain, rows.Options{}, bern},
		{"no name", "-", plain, rows.Options{}, bern},
		{"no line end", "", "city,qty,outcome\nBern,1,buy", rows.Options{}, bern},
		{"DOS", "", "city,qty,outcome\r\nBern,1,buy\r\n", rows.Options{}, bern},
		{"old Mac", "", "city,qty,outcome\rBern,1,buy\r", rows.Options{}, bern},
		{"mixed line ends, blank lines", "", "city,qty,outcome\r\n\nBern,1,buy\r\r\n  \nBern,2,buy", rows.Options{},
			"3 \"city\":\"Bern\",\"qty\":1},\"outcome\":\"buy\"\n6 \"city\":\"Bern\",\"qty\":2},\"outcome\":\"buy\"\n"},
		{"tabs", "a.tsv", "city\tqty\toutcome\nBern\t1\tbuy\n", rows.Options{}, bern},
		{"semicolons, decimal comma", "", "city;qty;outcome\nBern;1,5;buy\n", rows.Options{Decimal: ","}, strings.Replace(bern, ":1}", ":1.5}", 1)},
		{"decimal comma: no thousands", "", "city;qty;outcome\nBern;1.500,0;buy\n", rows.Options{Decimal: ","}, strings.Replace(bern, ":1}", `:"1.500,0"}`, 1)},
		{"other separators in a quoted column", "", "qty,\"a;b;c;d\",city,outcome\n1,x,Bern,buy\n", rows.Options{}, bern},
		{"spaces", "", "city , qty,\toutcome \n Bern ,  1,buy \n", rows.Options{}, bern},
		{"spaces around quotes", "", "city, qty, outcome\n \"Bern\" , \"1\", \"buy\"\n", rows.Options{}, bern},
		{"spaces in quotes", "", "city,qty,outcome\n\" Bern\",1,\"buy \"\n", rows.Options{}, "2 \"city\":\" " +
			"Bern\",\"qty\":1},\"outcome\":\"buy \"\n"},
		{"no-break space", "", "city,qty,outcome\n\u00a0Bern\u00a0,1,buy\n", rows.Options{}, bern},
		{"quotes, commas and lines in quotes", "", "city,qty,outcome\n\"a \"\"b\"\", c\r\nd\",1,buy\nBern,2,buy\n", rows.Options{},
			"2 \"city\":\"a \\\"b\\\", c\\r\\nd\",\"qty\":1},\"outcome\":\"buy\"\n4 " +
				"\"city\":\"Bern\",\"qty\":2},\"outcome\":\"buy\"\n"},
		{"null", "", "city,qty,outcome\n,,buy\n", rows.Options{}, "2 \"city\":null,\"qty\":null},\"outcome\":\"buy\"\n"},
		{"quoted nothing", "", "city,qty,outcome\n\"\",\"\",buy\n", rows.Options{}, "2 \"city\":\"\",\"qty\":null},\"outcome\":\"buy\"\n"},
		{"NA is a text", "", "city,qty,outcome\nNA,NA,NA\n", rows.Options{}, "2 \"city\":\"NA\",\"qty\":\"NA\"},\"outcome\":\"NA\"\n"},
		{"NA declared", "", "city,qty,outcome\nNA,nan,\"NA\"\nN/A,-, nan \n", rows.Options{NA: []string{"NA", "nan", "-"}},
			"2 \"city\":null,\"qty\":null},\"outcome\":\"NA\"\n3 \"city\":\"N/A\",\"qty\":null},\"outcome\":null\n"},
		{"numbers", "", "city,qty,outcome\na,+5,b\na,.5,b\na,5.,b\na,05,b\na,1e3,b\na,-0,b\n", rows.Options{},
			"2 \"city\":\"a\",\"qty\":5},\"outcome\":\"b\"\n3 \"city\":\"a\",\"qty\":0.5},\"outcome\":\"b\"\n4 " +
				"\"city\":\"a\",\"qty\":5},\"outcome\":\"b\"\n5 \"city\":\"a\",\"qty\":5},\"outcome\":\"b\"\n6 " +
				"\"city\":\"a\",\"qty\":1000},\"outcome\":\"b\"\n7 \"city\":\"a\",\"qty\":-0},\"outcome\":\"b\"\n"},
		{"no numbers", "", "city,qty,outcome\na,0x10,b\na,inf,b\na,1_000,b\na,1e999,b\na,\"1,5\",b\n", rows.Options{},
			"2 \"city\":\"a\",\"qty\":\"0x10\"},\"outcome\":\"b\"\n3 \"city\":\"a\",\"qty\":\"inf\"},\"outcome\":\"b\"\n4 " +
				"\"city\":\"a\",\"qty\":\"1_000\"},\"outcome\":\"b\"\n5 \"city\":\"a\",\"qty\":\"1e999\"},\"outcome\":\"b\"\n6 " +
				"\"city\":\"a\",\"qty\":\"1,5\"},\"outcome\":\"b\"\n"},
		{"unused columns", "", "note,city,qty,outcome,note,\n\xff,Bern,1,buy,\x00,z\n", rows.Options{}, bern},
		{"ragged", "", "city,qty,outcome\na,1\nBern,1,buy,\nBern,1,buy\n", rows.Options{},
			"2 REFUSED wrong number of fields: 2, and the header has 3\n3 REFUSED wrong number of fields: 4, and the header " +
				"has 3\n4" + bern[1:]},
		{"a stray quote", "", "city,qty,outcome\na\"b,1,buy\n\"a\"b,\"1\n\"c,1,buy\nBern,1,buy\n", rows.Options{},
			"2 REFUSED a \" stands in a value that does not begin with one: put the value in quotes, and double those in " +
				"it\n3 REFUSED something follows the closing \": double the quotes inside of a value\n5" + bern[1:]},
		{"an open quote", "", "city,qty,outcome\n\"a,1,buy\nBern,1,buy\n", rows.Options{}, "2 REFUSED its quotes are not " +
			"closed, and take everything up to line 3 with them: close them, and read the file again\n"},
		{"a long row", "", "city,qty,outcome\n" + strings.Repeat("x", rows.MaxRow+1) + ",1,buy\nBern,1,buy\n", rows.Options{},
			fmt.Sprintf("2 REFUSED the row is longer than %d bytes\n3%s", rows.MaxRow, bern[1:])},
		{"Latin-1 as UTF-8", "", "city,qty,outcome\nM\xe1laga,1,b\nBern,1,buy\n", rows.Options{},
			"2 REFUSED column city is \"M\\xe1laga\", which is not in the file's encoding: --encoding says which it is " +
				"(utf-8, latin-1, windows-1252, utf-16)\n3" + bern[1:]},
		{"Latin-1", "", "city,qty,outcome\nM\xe1laga,1,\x80\n", rows.Options{Encoding: "latin-1"}, "2 \"city\":\"Málaga\",\"qty\":1},\"outcome\":\"\u0080\"\n"},
		{"Windows-1252", "", "city,qty,outcome\nM\xe1laga,1,\x80\n\x81,1,b\n", rows.Options{Encoding: "windows-1252"},
			"2 \"city\":\"Málaga\",\"qty\":1},\"outcome\":\"€\"\n3 REFUSED column city is \"\\x81\", which is not in the " +
				"file's encoding: --encoding says which it is (utf-8, latin-1, windows-1252, utf-16)\n"},
		{"UTF-16 with a mark", "", wide(plain, false, true), rows.Options{Encoding: "utf-16"}, bern},
		{"UTF-16, big-endian", "", wide(plain, true, true), rows.Options{Encoding: "utf-16"}, bern},
		{"UTF-16 without a mark", "", wide(plain, false, false), rows.Options{Encoding: "utf-16"}, bern},
		{"UTF-16, big-endian without a mark", "", wide(plain, true, false), rows.Options{Encoding: "utf-16"}, bern},
		{"UTF-16, a pair, a legal U+FFFD, half a pair, half a unit", "", wide("city,qty,outcome\n🐧\ufffd,1,b\n", false, true) + "x\xd8,\x001\x00\x2c\x00b\x00\n\x00" + "a", rows.Options{Encoding: "utf-16"},
			"2 \"city\":\"🐧\ufffd\",\"qty\":1},\"outcome\":\"b\"\n3 REFUSED column city is \"\\xff\", which is not in the " +
				"file's encoding: --encoding says which it is (utf-8, latin-1, windows-1252, utf-16)\n4 REFUSED wrong number " +
				"of fields: 1, and the header has 3\n"},
		{"UTF-16, not said", "", wide(plain, false, true), rows.Options{}, "ERROR the file is UTF-16: read it with " +
			"--encoding utf-16"},
		{"UTF-16, not said and not marked", "", wide(plain, true, false), rows.Options{}, "ERROR the file is UTF-16: " +
			"read it with --encoding utf-16"},
		{"UTF-32", "", "\xff\xfe\x00\x00c\x00\x00\x00", rows.Options{Encoding: "utf-16"}, "ERROR the file is UTF-32, " +
			"which is not read: save it as UTF-8"},
		{"a mark", "", "\ufeff" + plain, rows.Options{}, bern},
		{"a mark before a quote", "", "\ufeff\"city\",qty,outcome\nBern,1,buy\n", rows.Options{}, bern},
		{"a mark of another encoding", "", "\ufeff" + plain, rows.Options{Encoding: "latin-1"}, "ERROR --encoding " +
			"latin-1: the file begins with the byte order mark of UTF-8; leave the option out"},
		{"two marks", "", "\ufeff\ufeff" + plain, rows.Options{}, `ERROR the CSV header has no column city; it has: "\ufeffcity", qty, outcome (--map COLUMN=city gives a column another name)`},
		{"a mark before JSON", "", "\ufeff{\"city\":\"Bern\",\"qty\":1,\"outcome\":\"buy\"}", rows.Options{}, "1" + bern[1:]},
		{"gzip", "a.csv.gz", zipped(plain), rows.Options{}, bern},
		{"gzip under another name, with a mark", "a", zipped("\ufeff" + plain), rows.Options{}, bern},
		{"gzip in parts", "", zipped("city,qty,outc", "ome\nBern,1,b", "uy\n"), rows.Options{}, bern},
		{"gzip, cut off", "", zipped(plain)[:40], rows.Options{}, bern + "ERROR line 3: the gzip file is cut off: fetch " +
			"or make it again"},
		{"gzip, its head cut off", "", zipped(plain)[:5], rows.Options{}, "ERROR the gzip file is cut off: fetch or make " +
			"it again"},
		{"gzip and more", "", zipped(plain) + "more and more", rows.Options{}, bern + "ERROR line 3: the gzip file has " +
			"something behind its end that is not gzip"},
		{"gzip twice", "", zipped(zipped(plain)), rows.Options{}, "ERROR the file is gzipped twice: unpack it once with " +
			"gzip -d"},
		{"zip", "a.csv", "PK\x03\x04\x14\x00", rows.Options{}, "ERROR the file is a zip archive (an Excel .xlsx is one): " +
			"unpack it, or save the sheet as CSV"},
		{"zstd in gzip", "", zipped("\x28\xb5\x2f\xfdabc"), rows.Options{}, "ERROR the file is compressed with zstd: " +
			"zstd -dc FILE | lockstep … -"},
		{"nothing", "a.csv", "", rows.Options{}, "ERROR the file is empty: a CSV file begins with a header"},
		{"nothing but lines", "", "\n\n", rows.Options{}, "ERROR the file is empty: a CSV file begins with a header"},
		{"no JSON", "a.jsonl", "", rows.Options{}, ""},
		{"a header alone", "", "city,qty,outcome", rows.Options{}, ""},
		{"names that are escape codes", "", "\x1b[2J,x\ny,z\n", rows.Options{}, `ERROR the CSV header has no column city, qty, outcome; it has: "\x1b[2J", x (--map COLUMN=city gives a column another name)`},
		{"names in other cases", "", "City,qty,outcome\n", rows.Options{}, `ERROR the CSV header has no column city; it has: City, qty, outcome (give --map City=city)`},
		{"a used column twice", "", "city,qty,outcome,city\n", rows.Options{}, "ERROR the CSV header has the column city " +
			"twice, as its columns 1 and 4"},
		{"map", "", "Ort,Menge,outcome,city\nBern,1,buy,x\n", rows.Options{Map: []string{"Ort=city", "Menge=qty"}}, bern},
		{"map JSON", "", "{\"Ort\":\"Bern\",\"qty\":1,\"city\":7,\"outcome\":\"buy\"}\n{\"attributes\":{\"Ort\":\"Bern\",\"qty\":1},\"outcome\":\"buy\",\"id\":\"x\"}", rows.Options{Map: []string{"Ort=city"}},
			"1" + bern[1:] + "2" + strings.TrimSuffix(bern[1:], "\n") + ",\"id\":\"x\"\n"},
		{"map to nowhere", "", plain, rows.Options{Map: []string{"x=y"}}, "ERROR --map x=y: the spec shop has no input " +
			"and no label y; it has: city, qty, outcome"},
		{"map from nowhere", "", plain, rows.Options{Map: []string{"x=city"}}, "ERROR --map: the file has no column x; " +
			"it has: city, qty, outcome"},
		{"map wrongly", "", plain, rows.Options{Map: []string{"city"}}, "ERROR --map city: it is column=input"},
		{"events", "a.jsonl", `{"attributes":{"city":"Bern","qty":1},"outcome":"buy"}` + "\r\n\n" + `{"attributes":` + "\n[]", rows.Options{}, "1" + bern[1:] + "3 {\"attributes\":\n4 []\n"},
		{"flat rows", "", `{"id":7,"outcome":"buy","qty":1.50,"more":{"a":[1]},"city":"B\u0065rn"}`, rows.Options{}, "1 \"qty\":1.50,\"city\":\"B\\u0065rn\"},\"outcome\":\"buy\"\n"},
		{"flat rows, a key twice", "", `{"city":"a","city":"b"}`, rows.Options{}, "1 \"city\":\"a\",\"city\":\"b\"}\n"},
		{"flat rows, bytes as they are", "", "{\"city\":\"M\xfc\",\"qty\":1,\"outcome\":\"\\ud800\"}", rows.Options{}, "1 \"city\":\"M\xfc\",\"qty\":1},\"outcome\":\"\\ud800\"\n"},
		{"a long line", "", `{"city":"` + strings.Repeat("x", rows.MaxRow) + "\"}\n{\"city\":\"b\"}", rows.Options{Format: "jsonl"}, fmt.Sprintf("1 REFUSED the line is longer than %d bytes\n2 \"city\":\"b\"}\n", rows.MaxRow)},
		{"an array", "a.json", "[\n {\"city\":\"a\"},\n\n {\"city\":\n\"b\"}\n]\n", rows.Options{}, "2 \"city\":\"a\"}\n4 \"city\":\"b\"}\n"},
		{"an array on a line", "a.json", `[{"city":"a"},{"city":"b"}]`, rows.Options{}, "1 \"city\":\"a\"}\n1 \"city\":\"b\"}\n"},
		{"an empty array", "a.json", "[ ]", rows.Options{}, ""},
		{"arrays on lines", "a.jsonl", "[{\"city\":\"a\"}]\n[]\n[{\"city\":\"b\"}]", rows.Options{}, "1 \"city\":\"a\"}\n3 \"city\":\"b\"}\n"},
		{"batches on lines", "a.jsonl", "[{\"attributes\":{}}]\n[]\n", rows.Options{Batches: true}, "1 [{\"attributes\":{}}]\n2 []\n"},
		{"an array of rows where batches are wanted", "-", `[{"city":"a"},{"city":"b"}]`, rows.Options{Batches: true}, "1 \"city\":\"a\"}\n1 \"city\":\"b\"}\n"},
		{"no text", "", "a,\x00\x01\nb,c\n", rows.Options{}, "ERROR line 1: the file is not text: its header has the byte 0"},
		{"an array and more", "", "[\n{\"city\":\"a\"}\n]\nx", rows.Options{}, "2 \"city\":\"a\"}\nERROR line 4: the " +
			"JSON is broken here, and cannot be read on: invalid character 'x' at start of value"},
		{"an array, cut off", "", "[\n{\"city\":\"a\"},\n{\"city\"", rows.Options{}, "2 \"city\":\"a\"}\nERROR line 3: " +
			"the JSON is cut off here"},
		{"an array, broken", "", "[\n{\"city\":\"a\"}\n{\"city\":\"b\"}]", rows.Options{}, "2 \"city\":\"a\"}\nERROR " +
			"line 3: the JSON is broken here, and cannot be read on: invalid character '{' after array element (expecting " +
			"',' or ']')"},
		{"an array, deep", "a.json", deep, rows.Options{}, "ERROR line 1: the JSON is broken here, and cannot be read " +
			"on: exceeded max depth"},
		{"an array with a long row", "a.json", "[\n\"" + strings.Repeat("x", 2*rows.MaxRow), rows.Options{}, fmt.Sprintf("ERROR line 1: the row is longer than %d bytes", rows.MaxRow)},
		{"rows over lines", "", "{\n\"city\":\"a\"\n}\n{\n\"city\":\"b\"\n}", rows.Options{}, "1 \"city\":\"a\"}\n4 " +
			"\"city\":\"b\"}\n"},
		{"JSON and options of CSV", "", "{}", rows.Options{NA: []string{"NA"}}, "ERROR --na and --decimal are for CSV " +
			"files, and this one is JSON: there null is null, and a number has a point"},
		{"another format", "", "", rows.Options{Format: "xml"}, "ERROR --format xml: it is csv or jsonl, or json for an " +
			"array of rows or for rows over several lines"},
		{"another encoding", "", "", rows.Options{Encoding: "ebcdic"}, "ERROR --encoding ebcdic: it is one of utf-8, " +
			"latin-1, windows-1252, utf-16"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			if got := read(strings.NewReader(c.in), c.name, c.o); got != c.want {
				t.Errorf("got\n%.600s\nwant\n%.600s", got, c.want)
			}
			// A pipe may give one byte at a time.
			if len(c.in) >= 1000 {
				return // the decoder moves what it has at each byte
			}
			if got := read(dribble{strings.NewReader(c.in)}, c.name, c.o); got != c.want {
				t.Errorf("byte by byte: got\n%.600s\nwant\n%.600s", got, c.want)
			}
		})
	}
}

// dribble reads a byte at a time.
type dribble struct{ io.Reader }

func (d dribble) Read(p []byte) (int, error) { return d.Reader.Read(p[:min(1, len(p))]) }
