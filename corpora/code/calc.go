// Command calc evaluates arithmetic expressions, one on each line of its
// standard input.
//
//	expression = term { ("+" | "-") term }
//	term       = unary { ("*" | "/" | "%") unary }
//	unary      = ("+" | "-") unary | power
//	power      = primary [ "^" unary ]
//	primary    = number | name | name "(" expression ")" | "(" expression ")"
package main

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"unicode"
)

var errDivision = errors.New("division by zero")

var constants = map[string]float64{"pi": math.Pi, "e": math.E}

var functions = map[string]func(float64) float64{
	"sqrt": math.Sqrt, "sin": math.Sin, "cos": math.Cos,
	"ln": math.Log, "abs": math.Abs, "floor": math.Floor,
}

// parser holds the text and the position of the next rune to be read.
type parser struct {
	text []rune
	pos  int
}

// Eval computes the value of an expression.
func Eval(s string) (float64, error) {
	p := &parser{text: []rune(s)}
	value, err := p.expression()
	if err != nil {
		return 0, err
	}
	if r := p.peek(); r != 0 {
		return 0, fmt.Errorf("unexpected %q at position %d", r, p.pos+1)
	}
	return value, nil
}

// peek skips blanks and returns the next rune, or 0 at the end.
func (p *parser) peek() rune {
	for p.pos < len(p.text) && unicode.IsSpace(p.text[p.pos]) {
		p.pos++
	}
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

// accept moves on if the next rune is one of those given.
func (p *parser) accept(set string) (rune, bool) {
	r := p.peek()
	if r == 0 || !strings.ContainsRune(set, r) {
		return 0, false
	}
	p.pos++
	return r, true
}

func (p *parser) takeWhile(ok func(rune) bool) string {
	start := p.pos
	for p.pos < len(p.text) && ok(p.text[p.pos]) {
		p.pos++
	}
	return string(p.text[start:p.pos])
}

func (p *parser) expression() (float64, error) {
	left, err := p.term()
	for err == nil {
		op, ok := p.accept("+-")
		if !ok {
			break
		}
		right, rightErr := p.term()
		if op == '-' {
			right = -right
		}
		left, err = left+right, rightErr
	}
	return left, err
}

func (p *parser) term() (float64, error) {
	left, err := p.unary()
	for err == nil {
		op, ok := p.accept("*/%")
		if !ok {
			break
		}
		right, rightErr := p.unary()
		switch {
		case rightErr != nil:
			err = rightErr
		case op == '*':
			left *= right
		case right == 0:
			err = errDivision
		case op == '/':
			left /= right
		default:
			left = math.Mod(left, right)
		}
	}
	return left, err
}

func (p *parser) unary() (float64, error) {
	if op, ok := p.accept("+-"); ok {
		value, err := p.unary()
		if op == '-' {
			value = -value
		}
		return value, err
	}
	return p.power()
}

func (p *parser) power() (float64, error) {
	base, err := p.primary()
	if err != nil {
		return 0, err
	}
	if _, ok := p.accept("^"); !ok {
		return base, nil
	}
	exponent, err := p.unary()
	return math.Pow(base, exponent), err
}

func (p *parser) primary() (float64, error) {
	r := p.peek()
	switch {
	case r == '(':
		return p.parenthesis()
	case unicode.IsDigit(r) || r == '.':
		s := p.takeWhile(func(r rune) bool { return unicode.IsDigit(r) || r == '.' })
		return strconv.ParseFloat(s, 64)
	case unicode.IsLetter(r):
		name := p.takeWhile(unicode.IsLetter)
		if value, ok := constants[name]; ok {
			return value, nil
		}
		f, ok := functions[name]
		if !ok {
			return 0, fmt.Errorf("unknown name %q", name)
		}
		argument, err := p.parenthesis()
		return f(argument), err
	case r == 0:
		return 0, errors.New("unexpected end of the expression")
	}
	return 0, fmt.Errorf("unexpected %q at position %d", r, p.pos+1)
}

func (p *parser) parenthesis() (float64, error) {
	if _, ok := p.accept("("); !ok {
		return 0, errors.New("missing opening parenthesis")
	}
	value, err := p.expression()
	if err != nil {
		return 0, err
	}
	if _, ok := p.accept(")"); !ok {
		return 0, errors.New("missing closing parenthesis")
	}
	return value, nil
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		line := strings.TrimSpace(in.Text())
		if line == "" {
			continue
		}
		if value, err := Eval(line); err != nil {
			fmt.Fprintln(os.Stderr, "calc:", err)
		} else {
			fmt.Println(strconv.FormatFloat(value, 'g', 12, 64))
		}
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "calc:", err)
		os.Exit(1)
	}
}
