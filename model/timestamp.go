package model

// What a timestamp may be: from the year 1 to the year 9999, in seconds since
// 1970.
const (
	minTimestamp = -62135596800
	maxTimestamp = 253402300799
)

// momentWanted is what is said of anything that is no timestamp.
const momentWanted = "Input should be a moment as in 2026-01-31T08:30:00Z, or a number of seconds since 1970"

// parseTimestamp reads RFC 3339 as seconds since 1970: a day, or a day and a
// time with an offset, or without one, which means UTC. Between day and time
// stands T or a space. Digits past the microsecond are passed over.
func parseTimestamp(text []byte) (seconds float64, ok bool) {
	p := clockReader{text: text}
	year, month, day := p.digits(4), p.after('-', 2), p.after('-', 2)
	if p.bad || month < 1 || month > 12 || day < 1 || day > daysOf(year, month) || year < 1 {
		return 0, false
	}
	whole, micros := daysSince1970(year, month, day)*86400, 0
	if len(p.text) > 0 {
		if p.text[0] != 'T' && p.text[0] != 't' && p.text[0] != ' ' {
			return 0, false
		}
		p.text = p.text[1:]
		hour, minute, second := p.digits(2), p.after(':', 2), 0
		if len(p.text) > 0 && p.text[0] == ':' {
			second = p.after(':', 2)
			micros = p.fraction()
		}
		whole += hour*3600 + minute*60 + second - p.offset()
		if hour > 23 || minute > 59 || second > 59 {
			return 0, false
		}
	}
	seconds = float64(whole) + float64(micros)/1e6
	return seconds, !p.bad && len(p.text) == 0 && seconds >= minTimestamp && seconds <= maxTimestamp
}

// clockReader reads a text from left to right; bad says that it was another
// than was wanted.
type clockReader struct {
	text []byte
	bad  bool
}

// digits reads exactly n digits.
func (p *clockReader) digits(n int) (v int) {
	if len(p.text) < n {
		p.bad = true
		return 0
	}
	for _, b := range p.text[:n] {
		if b < '0' || b > '9' {
			p.bad = true
			return 0
		}
		v = v*10 + int(b-'0')
	}
	p.text = p.text[n:]
	return v
}

// after reads a byte and then n digits.
func (p *clockReader) after(b byte, n int) int {
	if len(p.text) == 0 || p.text[0] != b {
		p.bad = true
		return 0
	}
	p.text = p.text[1:]
	return p.digits(n)
}

// fraction reads a point and digits, if there are any, as microseconds.
func (p *clockReader) fraction() (micros int) {
	if len(p.text) == 0 || p.text[0] != '.' {
		return 0
	}
	n := 1
	for unit := 100000; n < len(p.text) && p.text[n] >= '0' && p.text[n] <= '9'; n++ {
		micros += int(p.text[n]-'0') * unit
		unit /= 10
	}
	p.bad = p.bad || n == 1
	p.text = p.text[n:]
	return micros
}

// offset reads Z, or hours and minutes from UTC, as seconds.
func (p *clockReader) offset() int {
	if len(p.text) == 0 {
		return 0
	}
	sign := 0
	switch p.text[0] {
	case 'Z', 'z':
		p.text = p.text[1:]
		return 0
	case '+':
		sign = 1
	case '-':
		sign = -1
	default:
		p.bad = true
		return 0
	}
	p.text = p.text[1:]
	hours, minutes := p.digits(2), p.after(':', 2)
	p.bad = p.bad || hours > 23 || minutes > 59
	return sign * (hours*3600 + minutes*60)
}

func daysOf(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	default:
		return 31
	}
}

// daysSince1970 counts days in the Gregorian calendar. A year is taken to begin
// in March, so that a leap day is its last.
func daysSince1970(year, month, day int) int {
	if month <= 2 {
		year--
		month += 12
	}
	return 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - 719468
}
