// Texts that show what tokenizers do.

export const SAMPLES = {
  "A few words": "the answer to the ultimate question of life, the universe, and everything is 42.\n\nTokenizers disagree: naïve café, 12345678, and 🦙 llamas.\n",
  Code: 'def fibonacci(n: int) -> int:\n    """Return the n-th Fibonacci number."""\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n',
  Languages:
    "English: All human beings are born free.\nDeutsch: Alle Menschen sind frei geboren.\nРусский: Все люди рождаются свободными.\nالعربية: يولد جميع الناس أحرارا.\nहिन्दी: सभी मनुष्य जन्म से स्वतंत्र हैं।\n中文：人人生而自由。\n日本語：すべての人間は自由である。\n",
  Numbers: "3.14159265358979\n1,234,567 and 1234567\n2026-12-01T08:15:30Z\n0xdeadbeef\n",
  Emoji: "🙂 👍🏽 👩‍👩‍👧‍👦 🇩🇪 ✂️ 1️⃣ 🦙\n",
  "Special tokens":
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello!<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
  "White space": "one space, two  spaces,    four\n\ttab\n\ttab\n\n\nthree line breaks and trailing spaces   \n",
};
