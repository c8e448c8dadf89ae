-- | Huffman codes: frequent symbols get short codes, rare ones long codes,
-- and no code is the beginning of another.
module Main (main) where

import Data.List (insertBy, sortBy, unfoldr)
import qualified Data.Map.Strict as Map
import Data.Ord (comparing)

data Tree a
  = Leaf !Int a
  | Node !Int (Tree a) (Tree a)
  deriving (Show)

data Bit = O | I
  deriving (Eq, Show)

weight :: Tree a -> Int
weight (Leaf w _) = w
weight (Node w _ _) = w

-- | Count how often each symbol occurs.
frequencies :: Ord a => [a] -> Map.Map a Int
frequencies symbols = Map.fromListWith (+) [(s, 1) | s <- symbols]

-- | Join the two lightest trees until only one is left.
build :: Map.Map a Int -> Maybe (Tree a)
build counts = go (sortBy (comparing weight) leaves)
  where
    leaves = [Leaf w s | (s, w) <- Map.toList counts]
    go [] = Nothing
    go [tree] = Just tree
    go (a : b : rest) = go (insertBy (comparing weight) (join a b) rest)
    join a b = Node (weight a + weight b) a b

-- | The code of every symbol. A tree with a single leaf still needs one bit.
codes :: Ord a => Tree a -> Map.Map a [Bit]
codes (Leaf _ s) = Map.singleton s [O]
codes tree = Map.fromList (walk tree [])
  where
    walk (Leaf _ s) path = [(s, reverse path)]
    walk (Node _ l r) path = walk l (O : path) ++ walk r (I : path)

-- | Nothing if some symbol has no code.
encode :: Ord a => Map.Map a [Bit] -> [a] -> Maybe [Bit]
encode table = fmap concat . traverse (`Map.lookup` table)

decode :: Tree a -> [Bit] -> [a]
decode tree = unfoldr (next tree)
  where
    next _ [] = Nothing
    next (Leaf _ s) (_ : bits) = Just (s, bits)
    next node bits = descend node bits

    descend (Leaf _ s) bits = Just (s, bits)
    descend (Node _ l _) (O : bits) = descend l bits
    descend (Node _ _ r) (I : bits) = descend r bits
    descend _ [] = Nothing

-- | The entropy of a text in bits per symbol: no code can do better.
entropy :: Map.Map a Int -> Double
entropy counts = sum [negate p * logBase 2 p | w <- Map.elems counts, let p = share w]
  where
    total = fromIntegral (sum counts)
    share w = fromIntegral w / total

showBits :: [Bit] -> String
showBits = map (\bit -> if bit == O then '0' else '1')

main :: IO ()
main = do
  let text = "she sells sea shells by the sea shore"
      counts = frequencies text
  case build counts of
    Nothing -> putStrLn "nothing to encode"
    Just tree -> do
      let table = codes tree
      mapM_ putStrLn [show s ++ "  " ++ showBits c | (s, c) <- Map.toList table]
      case encode table text of
        Nothing -> putStrLn "a symbol without a code"
        Just bits -> do
          putStrLn (showBits bits)
          putStrLn ("bits:    " ++ show (length bits))
          putStrLn ("entropy: " ++ show (entropy counts * fromIntegral (length text)))
          putStrLn ("decoded: " ++ decode tree bits)
