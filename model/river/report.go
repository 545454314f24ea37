package river

// Report takes what a component has learned, by the names that River's
// attributes have (class_counts, feature_counts, …). Values are what
// encoding/json takes.
type Report struct {
	Labels []string // by class
	out    map[string]any
}

// NewReport makes a report that writes to out.
func NewReport(out map[string]any, labels []string) Report { return Report{labels, out} }

// Set reports a value.
func (r Report) Set(key string, value any) { r.out[key] = value }

// In is the report of what is under a key, made if there is none yet.
func (r Report) In(key string) Report {
	inner, ok := r.out[key].(map[string]any)
	if !ok {
		inner = map[string]any{}
		r.out[key] = inner
	}
	return Report{r.Labels, inner}
}
