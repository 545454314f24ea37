package model

// sequence is a fixed sequence of numbers that look random: splitmix64.
type sequence uint64

func (s *sequence) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// unit is from 0 to below 1.
func (s *sequence) unit() float64 { return float64(s.next()>>11) * 0x1p-53 }
