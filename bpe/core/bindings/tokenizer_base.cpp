// The base class of bpe.Tokenizer.

#include "bindings/encoder.hpp"
#include "bindings/python.hpp"
#include "encode/special.hpp"

namespace bpe {

namespace {

// The methods of Tokenizer, its subclass in Python, that are called for texts so short that a Python function around
// them would take longer than they do.
class TokenizerBase {
 public:
    // `core` is None if the pattern has no scanner.
    TokenizerBase(nb::object core, nb::object all_special)
        : core_(std::move(core)),
          all_special_(std::move(all_special)),
          encoder_(core_.is_none() ? nullptr : nb::cast<PythonEncoder*>(core_)),
          special_(nb::cast<const SpecialTokens*>(all_special_)) {}

    static nb::object encode_ordinary(nb::handle_t<TokenizerBase> self, nb::handle text) {
        const TokenizerBase& base = of(self);
        if (!base.encoder_) return self.attr("_encode_slowly")(text, nb::none());
        return base.encoder_->encode(text, nullptr);
    }

    // Tokenizer.encode with its defaults: no special token is allowed, and any in the text is an error.
    static nb::object encode_without_special(nb::handle_t<TokenizerBase> self, nb::handle text) {
        const TokenizerBase& base = of(self);
        {
            const TextArgument content(text);
            const Bytes bytes = content.bytes();
            if (const auto match = base.special_->find(bytes, 0); match.begin < bytes.size()) {
                const Bytes token = bytes.subspan(match.begin, match.end - match.begin);
                self.attr("_raise_disallowed")(nb::str(reinterpret_cast<const char*>(token.data()), token.size()));
            }
        }
        return encode_ordinary(self, text);
    }

    static nb::object encode_to_numpy(nb::handle_t<TokenizerBase> self, nb::handle text, nb::handle allowed,
                                      nb::handle disallowed) {
        const TokenizerBase& base = of(self);
        if (!base.encoder_ || !is_empty_set(allowed) || is_true(disallowed)) {
            return self.attr("_encode_to_numpy")(text, allowed, disallowed);
        }
        return base.encoder_->encode_to_numpy(text, nullptr);
    }

 private:
    static bool is_empty_set(nb::handle object) {
        return PyAnySet_Check(object.ptr()) && PySet_GET_SIZE(object.ptr()) == 0;
    }
    static bool is_true(nb::handle object) {
        const int result = PyObject_IsTrue(object.ptr());
        if (result < 0) nb::raise_python_error();
        return result;
    }
    static const TokenizerBase& of(nb::handle_t<TokenizerBase> self) { return *nb::inst_ptr<TokenizerBase>(self); }

    nb::object core_;
    nb::object all_special_;
    PythonEncoder* encoder_;
    const SpecialTokens* special_;
};

}  // namespace

void register_tokenizer_base(nb::module_& module) {
    nb::class_<TokenizerBase>(module, "TokenizerBase")
        .def(nb::init<nb::object, nb::object>(), nb::arg("core").none(), nb::arg("all_special"))
        .def("encode_ordinary", &TokenizerBase::encode_ordinary, nb::arg("text").none(),
             R"(Encode a text, treating special tokens in it as ordinary text.

Args:
    text: A str, bytes or any buffer. Lone surrogates in a str become U+FFFD, as in tiktoken. In bytes, each byte that is
        not part of well-formed UTF-8 counts as one character that is neither letter, number nor white space; it is kept.

Returns:
    The ids.)")
        .def("encode_to_numpy", &TokenizerBase::encode_to_numpy, nb::arg("text").none(), nb::kw_only(),
             nb::arg("allowed_special").none() = nb::steal(PyFrozenSet_New(nullptr)),
             nb::arg("disallowed_special").none() = "all",
             R"(Encode a text as `encode` does, into an array.

Args:
    text: A str, bytes or any buffer.
    allowed_special: The special tokens to encode as themselves, or "all".
    disallowed_special: The special tokens that raise an error if they occur in the text; "all" means all that are not
        allowed.

Returns:
    The ids: [tokens], uint32.

Raises:
    TypeError: As in `encode`.
    ValueError: When the text contains a disallowed special token.)")
        .def("_encode_without_special", &TokenizerBase::encode_without_special, nb::arg("text").none());
}

}  // namespace bpe
